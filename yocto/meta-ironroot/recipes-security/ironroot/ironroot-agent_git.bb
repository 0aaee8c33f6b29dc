SUMMARY = "SPIFFE identities for the workloads of a device, proven by its TPM 2.0"
SUMMARY:${PN}-manifest = "Writes the device's row for the server's manifest at its first boot"
DESCRIPTION = "Proves the device's TPM to an Ironroot or SPIRE server and serves X.509-SVIDs to local processes, also offline from a sealed cache."

require ironroot.inc

DEPENDS:append:class-target = " tpm2-tss"
DEPENDS:append:class-native = " tpm2-tss-native"

# What tss-esapi-sys brings bindings for; for others it runs bindgen, which no recipe gives it.
COMPATIBLE_HOST:class-target = "(x86_64|aarch64|arm).*-linux.*"

# Beside agent.conf an image may add file://bootstrap.pem: how the server is recognised the first time ("ironroot-server bundle show");
# and file://policy.pub: whose signature on a boot state counts ("ironroot-server policy sign").
SRC_URI += "file://ironroot-manifest.service"

# The unit copies the firmware's log of the boot with install(1), which oe-core's busybox has not. A distribution without GPLv3 removes it:
# its devices attest all the same, but not what firmware logged (tpm2:secureboot:on and the like).
PACKAGECONFIG ??= "boot-log"
PACKAGECONFIG:class-native = ""
PACKAGECONFIG[boot-log] = ",,,,coreutils"

# The smallest binary. Classes after wrynose take the profile by its name.
BUILD_MODE = "--profile device"
BUILD_DIR = "device"
# nooelint: oelint.vars.mispell.unknown - cargo_common.bbclass reads it
CARGO_PROFILE = "device"

# A number that stays the same from image to image: what is kept in /var belongs to it.
IRONROOT_AGENT_UID ?= "791"
IRONROOT_AGENT_HOME = "${localstatedir}/lib/ironroot-agent"
GROUPADD_PARAM:${PN} = "--system --gid ${IRONROOT_AGENT_UID} ironroot-agent"
IRONROOT_AGENT_USER = "--system --uid ${IRONROOT_AGENT_UID} --gid ironroot-agent --groups tss"
USERADD_PARAM:${PN} = "${IRONROOT_AGENT_USER} --no-create-home --home-dir ${IRONROOT_AGENT_HOME} --shell /sbin/nologin ironroot-agent"

SYSTEMD_PACKAGES = "${PN} ${PN}-manifest"
SYSTEMD_SERVICE:${PN}-manifest = "ironroot-manifest.service"

do_install() {
    ironroot_install agent
    for file in bootstrap.pem policy.pub; do
        if [ -f ${UNPACKDIR}/$file ]; then
            install -m 0644 ${UNPACKDIR}/$file ${D}${sysconfdir}/ironroot/$file
        fi
    done
    if ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        install -m 0644 ${UNPACKDIR}/ironroot-manifest.service ${D}${systemd_system_unitdir}/ironroot-manifest.service
        sed -i -e 's,/usr/bin/,${bindir}/,g' ${D}${systemd_system_unitdir}/ironroot-manifest.service
    fi
}

PACKAGE_BEFORE_PN = "${PN}-manifest"
FILES:${PN}-manifest += "${systemd_system_unitdir}/ironroot-manifest.service"
RDEPENDS:${PN}-manifest = "${PN}"

CONFFILES:${PN} = "${sysconfdir}/ironroot/agent.conf"

# The library is opened by name, so that no dependency is found by looking at the binary; the group tss and the rule that gives it the
# chip are in tpm2-tss, on which its libraries do not depend.
RDEPENDS:${PN}:append:class-target = " tpm2-tss libtss2-tcti-device"
RRECOMMENDS:${PN}:append:class-target = " kernel-module-tpm-tis kernel-module-tpm-crb"
