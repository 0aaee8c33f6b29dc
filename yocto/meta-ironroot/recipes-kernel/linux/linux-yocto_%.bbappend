# Only where DISTRO_FEATURES_OVERRIDES and DISTRO_FEATURES name "ironroot": a layer changes nobody's kernel by being there. The path is
# conditional too, since kernel-yocto.bbclass hashes each folder of FILESEXTRAPATHS into do_kernel_metadata.
FILESEXTRAPATHS:prepend:df-ironroot := "${THISDIR}/files:"
SRC_URI:append:df-ironroot = " file://ironroot.scc"
