//! The bundle of another trust domain, which its own members are verified by.

use ironroot_api::TrustDomain;
use ironroot_api::bundle::Bundle;
use ironroot_api::jwt::{JwtAuthorities, JwtAuthority};
use ironroot_api::pb::types;
use prost::Message;
use prost::bytes::{Bytes, BytesMut};
use rustls_pki_types::CertificateDer;

use super::AnswerRefusal;

/// See the module. It may be empty: then nobody of that trust domain is to be believed.
#[derive(Clone, Debug)]
pub struct ForeignBundle {
    bundle: Bundle,
    concatenated: Bytes,
    jwt: JwtAuthorities,
}

impl ForeignBundle {
    /// Checks what GetFederatedBundle answered about the trust domain that was `asked` for. Keys that sign no JWT-SVID this agent can
    /// verify are left out; a bundle of somebody else, or one that breaks the bounds of bundles, is refused.
    //= TDB-08 SPIFFE Federation 4.2: "Bundle contents from different trust domains MUST NOT be merged into a single, larger bundle."
    pub fn from_answer(answer: &types::Bundle, asked: &TrustDomain) -> Result<Self, AnswerRefusal> {
        let mut wire = answer.clone();
        wire.jwt_authorities.retain(|key| JwtAuthority::from_wire(key).is_some());
        let bundle = Bundle::from_pb(&wire).map_err(AnswerRefusal::ForeignBundle)?;
        if bundle.trust_domain() != asked {
            return Err(AnswerRefusal::OtherTrustDomain(bundle.trust_domain().as_str().to_owned()));
        }
        let mut concatenated = BytesMut::new();
        bundle.x509_authorities().for_each(|der| concatenated.extend_from_slice(der));
        let jwt = JwtAuthorities::from_wire(asked, &bundle.to_pb().jwt_authorities);
        Ok(Self { bundle, concatenated: concatenated.freeze(), jwt })
    }

    /// Whose it is.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.bundle.trust_domain()
    }

    /// The X.509 authorities' DER certificates laid end to end, as the Workload API sends them; empty if there are none.
    pub fn concatenated(&self) -> &Bytes {
        &self.concatenated
    }

    /// The X.509 authorities.
    pub fn x509_authorities(&self) -> impl Iterator<Item = CertificateDer<'_>> {
        self.bundle.x509_authorities().map(CertificateDer::from)
    }

    /// The keys that sign the trust domain's JWT-SVIDs.
    pub fn jwt_authorities(&self) -> &JwtAuthorities {
        &self.jwt
    }

    /// As it is stored.
    pub fn to_wire(&self) -> &types::Bundle {
        self.bundle.to_pb()
    }

    /// How long it is on the wire, bytes.
    pub fn wire_bytes(&self) -> usize {
        self.bundle.to_pb().encoded_len()
    }
}

impl PartialEq for ForeignBundle {
    fn eq(&self, other: &Self) -> bool {
        self.bundle == other.bundle
    }
}

impl Eq for ForeignBundle {}
