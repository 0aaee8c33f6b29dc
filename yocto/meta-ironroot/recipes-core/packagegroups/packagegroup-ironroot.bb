SUMMARY = "Ironroot on devices and on servers"
SUMMARY:${PN}-device = "A device: the agent, its row for the manifest, tools to look at the chip"
SUMMARY:${PN}-server = "A server, with a token in software to try it with"
DESCRIPTION = "What a device needs to prove its TPM and to serve identities, and what a small server needs to enrol devices."
SECTION = "security"

PACKAGE_ARCH = "${TUNE_PKGARCH}"

# As the agent; elsewhere ask for ironroot-server by itself.
COMPATIBLE_HOST = "(x86_64|aarch64|arm).*-linux.*"

inherit packagegroup

PACKAGES = "${PN}-device ${PN}-server"

RDEPENDS:${PN}-device = "\
    ironroot-agent \
    ironroot-agent-manifest \
    tpm2-tools \
"
RDEPENDS:${PN}-server = "ironroot-server"
RRECOMMENDS:${PN}-server = "softhsm"
