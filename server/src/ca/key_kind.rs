//! What kind of key an authority has, told from its public half.

use ironroot_api::certificate::Certificate;
use ironroot_api::csr::{self, Spki};
use ironroot_hsm::KeyKind;

/// What kind of key a certificate is for; of one that no server of ours makes, the default.
pub(crate) fn certified_kind(certificate: &Certificate) -> KeyKind {
    Spki::parse(&certificate.spki_der()).map(|spki| kind_of(&spki)).unwrap_or_default()
}

/// What kind of key this public half is of.
pub(super) fn kind_of(spki: &Spki) -> KeyKind {
    match (spki.kind(), spki.modulus_bits()) {
        (csr::KeyKind::EcP384, _) => KeyKind::EcP384,
        (csr::KeyKind::Rsa, Some(4096)) => KeyKind::Rsa4096,
        (csr::KeyKind::Rsa, _) => KeyKind::Rsa2048,
        (csr::KeyKind::MlDsa(set), _) => KeyKind::MlDsa(set),
        // No other kind is made.
        (csr::KeyKind::EcP256 | csr::KeyKind::Ed25519, _) => KeyKind::EcP256,
    }
}
