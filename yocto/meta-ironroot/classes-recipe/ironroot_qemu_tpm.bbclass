# A software TPM for runqemu: swtpm is started before the machine and ends with it. Its state, the chip, is kept beside the image:
# remove the directory for a new chip. Without certificates of a maker, whose keys are root's on most machines: enrol it by its hash. Needs swtpm on the machine that runs runqemu (or swtpm-native in its PATH).

IRONROOT_SWTPM_DIR ?= "${DEPLOY_DIR_IMAGE}/ironroot-swtpm"
IRONROOT_QEMU_TPM_DEVICE ?= "${@'tpm-tis-device' if d.getVar('TARGET_ARCH') in ('aarch64', 'arm') else 'tpm-tis'}"

IRONROOT_SWTPM_SETUP = "swtpm_setup --tpm2 --tpmstate ${IRONROOT_SWTPM_DIR} --pcr-banks sha256"
IRONROOT_SWTPM = "swtpm socket --tpm2 --daemon --terminate --tpmstate dir=${IRONROOT_SWTPM_DIR} --ctrl type=unixio,path=${IRONROOT_SWTPM_DIR}/sock"
IRONROOT_HAVE_CHIP = "test -e ${IRONROOT_SWTPM_DIR}/tpm2-00.permall"

# nooelint: oelint.vars.mispell.unknown - runqemu reads it
QB_SETUP_CMD = "mkdir -p ${IRONROOT_SWTPM_DIR} && { ${IRONROOT_HAVE_CHIP} || ${IRONROOT_SWTPM_SETUP}; } && ${IRONROOT_SWTPM}"
QB_OPT_APPEND:append = " -chardev socket,id=chrtpm,path=${IRONROOT_SWTPM_DIR}/sock"
QB_OPT_APPEND:append = " -tpmdev emulator,id=tpm0,chardev=chrtpm -device ${IRONROOT_QEMU_TPM_DEVICE},tpmdev=tpm0"
# nooelint: oelint.vars.mispell.unknown - runqemu reads it
QB_CLEANUP_CMD = "rm -f ${IRONROOT_SWTPM_DIR}/sock"

# The firmware of "runqemu ... ovmf", which speaks to the chip where MACHINE_FEATURES has tpm2. It is built for x86-64 alone.
EXTRA_IMAGEDEPENDS:append:qemux86-64 = " ovmf"
