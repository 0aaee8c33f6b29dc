//! The bundle of the server above, read: all of it, or none.

use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_api::jwt::{JwtAuthority, MAX_JWT_AUTHORITIES};
use ironroot_api::pb::types;

use super::SpireError;
use crate::ca::published::TokenKind;
use crate::ca::upstream::UpstreamError;
use crate::ca::upstream::minted::MAX_ROOTS;
use crate::ca::upstream::roots::above;
use crate::facts::tier::{TierAuthority, TierCredential};

/// What the server above has.
#[derive(Debug)]
pub(super) struct Above {
    /// Roots that are not tainted.
    pub(super) roots: Vec<Certificate>,
    /// Roots and keys of JWT-SVIDs, as they are kept.
    pub(super) authorities: Vec<TierAuthority>,
}

impl Above {
    /// A root that is none spoils it all; a key that verifies no JWT-SVID is left out: any server below the other one may have published
    /// it.
    pub(super) fn parse(bundle: &types::Bundle, trust_domain: &TrustDomain) -> Result<Self, UpstreamError> {
        if bundle.trust_domain != trust_domain.as_str() {
            return Err(SpireError::OtherBundle(bundle.trust_domain.clone()).into());
        }
        match bundle.x509_authorities.len() {
            0 => return Err(UpstreamError::NoRoots),
            many if many > MAX_ROOTS => return Err(UpstreamError::TooManyRoots(many)),
            _ => {}
        }
        let (mut roots, mut authorities) = (Vec::new(), Vec::new());
        for wire in &bundle.x509_authorities {
            let root = Certificate::parse(&wire.asn1)?;
            if !root.is_ca() {
                return Err(SpireError::NotAnAuthority.into());
            }
            let credential = TierCredential::Certificate(root.der().to_vec());
            authorities.push(TierAuthority { tainted: wire.tainted, ..above(credential, root.not_after_unix()) });
            roots.extend((!wire.tainted).then_some(root));
        }
        let keys = bundle.jwt_authorities.iter().filter(|wire| JwtAuthority::from_wire(wire).is_some());
        authorities.extend(keys.take(MAX_JWT_AUTHORITIES).map(key));
        let keys = bundle.wit_authorities.iter().filter(|wire| JwtAuthority::from_wire(&as_jwt_key(wire)).is_some());
        authorities.extend(keys.take(MAX_JWT_AUTHORITIES).map(wit_key));
        Ok(Self { roots, authorities })
    }

    /// Whether it has a key of that kind and ID.
    pub(super) fn has_key(&self, kind: TokenKind, id: &str) -> bool {
        has_key(kind, &self.authorities, id)
    }
}

/// Whether a key of that kind and ID is among them.
pub(super) fn has_key(kind: TokenKind, authorities: &[TierAuthority], id: &str) -> bool {
    authorities.iter().any(|authority| match (kind, &authority.credential) {
        (TokenKind::Jwt, TierCredential::JwtKey { key_id, .. })
        | (TokenKind::Wit, TierCredential::WitKey { key_id, .. }) => key_id == id,
        _ => false,
    })
}

fn key(wire: &types::JwtKey) -> TierAuthority {
    let (key_id, spki) = (wire.key_id.clone(), wire.public_key.to_vec());
    TierAuthority { tainted: wire.tainted, ..above(TierCredential::JwtKey { key_id, spki }, wire.expires_at) }
}

/// What verifies WIT-SVIDs is said in the same words.
fn as_jwt_key(wire: &types::WitKey) -> types::JwtKey {
    let types::WitKey { public_key, key_id, expires_at, tainted } = wire.clone();
    types::JwtKey { public_key, key_id, expires_at, tainted }
}

fn wit_key(wire: &types::WitKey) -> TierAuthority {
    let (key_id, spki) = (wire.key_id.clone(), wire.public_key.to_vec());
    TierAuthority { tainted: wire.tainted, ..above(TierCredential::WitKey { key_id, spki }, wire.expires_at) }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PublicKeyData};

    use super::*;

    fn root(is_ca: bool) -> types::X509Certificate {
        let mut params = CertificateParams::default();
        params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        types::X509Certificate { asn1: certificate.der().to_vec().into(), tainted: false }
    }

    fn bundle(roots: Vec<types::X509Certificate>) -> types::Bundle {
        let public_key = KeyPair::generate().unwrap().subject_public_key_info().into();
        let key = types::JwtKey { key_id: "k".into(), public_key, expires_at: 9, tainted: false };
        let unusable = types::JwtKey { key_id: "u".into(), ..types::JwtKey::default() };
        let wit =
            types::WitKey { public_key: key.public_key.clone(), key_id: "w".into(), expires_at: 9, tainted: true };
        let (trust_domain, jwt_authorities) = ("td".into(), vec![unusable, key]);
        let wit_authorities = vec![types::WitKey::default(), wit];
        types::Bundle { trust_domain, x509_authorities: roots, jwt_authorities, wit_authorities, ..Default::default() }
    }

    fn parsed(bundle: &types::Bundle) -> Result<Above, UpstreamError> {
        Above::parse(bundle, &TrustDomain::new("td").unwrap())
    }

    #[test]
    fn roots_and_keys_are_read_and_what_verifies_nothing_is_left_out() {
        let tainted = types::X509Certificate { tainted: true, ..root(true) };
        let above = parsed(&bundle(vec![tainted, root(true)])).unwrap();
        assert_eq!((above.roots.len(), above.authorities.len()), (1, 4));
        assert!(matches!(&above.authorities[3].credential, TierCredential::WitKey { key_id, .. } if key_id == "w"));
        assert!(above.authorities[0].tainted && !above.authorities[1].tainted);
        assert!(above.has_key(TokenKind::Jwt, "k") && !above.has_key(TokenKind::Jwt, "u"));
        assert!(above.has_key(TokenKind::Wit, "w") && !above.has_key(TokenKind::Wit, "k"));
    }

    #[test]
    fn a_bundle_that_is_wrong_anywhere_is_not_taken() {
        let garbage = types::X509Certificate { asn1: b"no certificate".to_vec().into(), tainted: false };
        assert!(matches!(parsed(&bundle(Vec::new())), Err(UpstreamError::NoRoots)));
        assert!(matches!(parsed(&bundle(vec![root(true), garbage])), Err(UpstreamError::Certificate(_))));
        let refused = parsed(&bundle(vec![root(true), root(false)]));
        assert!(matches!(refused, Err(UpstreamError::Spire(SpireError::NotAnAuthority))));
        let many = vec![root(true); MAX_ROOTS + 1];
        assert!(matches!(parsed(&bundle(many)), Err(UpstreamError::TooManyRoots(_))));
        let other = types::Bundle { trust_domain: "other".into(), ..bundle(vec![root(true)]) };
        assert!(matches!(parsed(&other), Err(UpstreamError::Spire(SpireError::OtherBundle(_)))));
    }
}
