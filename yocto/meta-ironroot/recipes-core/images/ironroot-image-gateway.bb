SUMMARY = "A gateway whose identity is its TPM: read-only root, writable /var"
DESCRIPTION = "Boots, proves the chip to the server that agent.conf names, and serves identities to what runs on it."
SECTION = "security"
LICENSE = "MIT"

REQUIRED_DISTRO_FEATURES = "systemd"

inherit core-image features_check ironroot_qemu_tpm

# As the agent.
COMPATIBLE_HOST = "(x86_64|aarch64|arm).*-linux.*"

IMAGE_FEATURES += "read-only-rootfs"
IMAGE_LINGUAS = ""

IMAGE_INSTALL = "packagegroup-core-boot packagegroup-ironroot-device ${CORE_IMAGE_EXTRA_INSTALL}"

# GPT: an ESP with the kernel, the root, and /var, where the agent writes. Set with "=", since most machines have named a layout with "?="
# before this recipe is read, and theirs have no /var. A layout for a board, with a /var of its own: IRONROOT_WKS_FILE.
IMAGE_FSTYPES += "wic"
IRONROOT_WKS_FILE ?= "ironroot-gateway.wks.in"
WKS_FILE = "${IRONROOT_WKS_FILE}"

# Measured with the kernel: no word of it may depend on the machine, so that a policy over PCR values can name it. IMA measures what
# is executed; lockdown keeps root out of the kernel; a panic restarts, since nobody is there to look at it; credentials that come with
# the machine (SMBIOS, fw_cfg) would be files and programs of root's, so none is taken.
# The consoles are the machine's, the same for each device of its kind.
# nooelint: oelint.vars.mispell.unknown - the .wks.in reads it
IRONROOT_KERNEL_CMDLINE ?= "ro rootwait lockdown=integrity ima_policy=tcb ima_hash=sha256 panic=10 systemd.import_credentials=no ${@ironroot_consoles(d)}"

def ironroot_consoles(d):
    """SERIAL_CONSOLES ("115200;ttyS0 ...") as the kernel reads them: the first of them comes last, and is /dev/console."""
    serial = [console.split(';') for console in (d.getVar('SERIAL_CONSOLES') or '').split()]
    return ' '.join(['console=tty0'] + ['console=%s,%s' % (console[1], console[0]) for console in reversed(serial)])
