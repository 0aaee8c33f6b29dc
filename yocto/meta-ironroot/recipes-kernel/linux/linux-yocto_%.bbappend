# Only where DISTRO_FEATURES_OVERRIDES and DISTRO_FEATURES name "ironroot": a layer changes nobody's kernel by being there.
# nooelint: oelint.vars.noncoreoverride - a path changes no signature
FILESEXTRAPATHS:prepend := "${THISDIR}/files:"
SRC_URI:append:df-ironroot = " file://ironroot.scc"
