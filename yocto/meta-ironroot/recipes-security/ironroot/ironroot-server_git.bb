SUMMARY = "Enrols TPM-attested fleets and signs their SPIFFE identities in an HSM"
DESCRIPTION = "Speaks SPIRE's protocol. The CA's keys live in a PKCS#11 token, whose library server.conf names."

require ironroot.inc

# A number that stays the same from image to image: what is kept in /var belongs to it.
IRONROOT_SERVER_UID ?= "792"
IRONROOT_SERVER_HOME = "${localstatedir}/lib/ironroot-server"
GROUPADD_PARAM:${PN} = "--system --gid ${IRONROOT_SERVER_UID} ironroot-server"
IRONROOT_SERVER_USER = "--system --uid ${IRONROOT_SERVER_UID} --gid ironroot-server"
USERADD_PARAM:${PN} = "${IRONROOT_SERVER_USER} --no-create-home --home-dir ${IRONROOT_SERVER_HOME} --shell /sbin/nologin ironroot-server"

do_install() {
    ironroot_install server
}

CONFFILES:${PN} = "${sysconfdir}/ironroot/server.conf"
