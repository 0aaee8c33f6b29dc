//! The bundle of another trust domain as the database keeps it: a format of its own.

use ironroot_api::TrustDomain;
use ironroot_api::bundle::Bundle;
use ironroot_api::pb::types;
use prost::Message;

/// A tag that has shipped is never used for anything else.
#[derive(Clone, PartialEq, Message)]
struct StoredBundle {
    /// DER certificates, in the order in which they came.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    x509_authorities: Vec<prost::bytes::Bytes>,
    #[prost(message, repeated, tag = "2")]
    jwt_authorities: Vec<StoredKey>,
    /// Seconds; 0 where nothing is said.
    #[prost(int64, tag = "3")]
    refresh_hint: i64,
    #[prost(uint64, tag = "4")]
    sequence_number: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredKey {
    /// DER SubjectPublicKeyInfo.
    #[prost(bytes = "bytes", tag = "1")]
    public_key: prost::bytes::Bytes,
    #[prost(string, tag = "2")]
    key_id: String,
    /// UNIX seconds; 0 where nothing is said.
    #[prost(int64, tag = "3")]
    expires_at: i64,
}

/// What the row of the bundle says beside whose it is.
pub fn encode_bundle(bundle: &Bundle) -> Vec<u8> {
    let wire = bundle.to_pb();
    let key = |key: &types::JwtKey| StoredKey {
        public_key: key.public_key.clone(),
        key_id: key.key_id.clone(),
        expires_at: key.expires_at,
    };
    StoredBundle {
        x509_authorities: wire.x509_authorities.iter().map(|authority| authority.asn1.clone()).collect(),
        jwt_authorities: wire.jwt_authorities.iter().map(key).collect(),
        refresh_hint: wire.refresh_hint,
        sequence_number: wire.sequence_number,
    }
    .encode_to_vec()
}

/// The bundle that [`encode_bundle`] wrote. None of today's bounds count: what was taken once stays.
pub fn decode_bundle(trust_domain: &TrustDomain, row: &[u8]) -> Result<Bundle, prost::DecodeError> {
    let stored = StoredBundle::decode(row)?;
    let authority = |asn1| types::X509Certificate { asn1, tainted: false };
    let key = |key: StoredKey| types::JwtKey {
        public_key: key.public_key,
        key_id: key.key_id,
        expires_at: key.expires_at,
        tainted: false,
    };
    let wire = types::Bundle {
        trust_domain: String::new(),
        x509_authorities: stored.x509_authorities.into_iter().map(authority).collect(),
        jwt_authorities: stored.jwt_authorities.into_iter().map(key).collect(),
        refresh_hint: stored.refresh_hint,
        sequence_number: stored.sequence_number,
        wit_authorities: Vec::new(),
    };
    Ok(Bundle::accepted(trust_domain.clone(), wire))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn td() -> TrustDomain {
        TrustDomain::new("other").expect("legal")
    }

    #[test]
    fn everything_is_read_back_as_it_was_written_whatever_todays_bounds_are() {
        let key = types::JwtKey { public_key: vec![2].into(), key_id: "k".into(), expires_at: 3, tainted: false };
        let authority = types::X509Certificate { asn1: vec![1].into(), tainted: false };
        let wire = types::Bundle {
            trust_domain: "other".into(),
            x509_authorities: vec![authority],
            jwt_authorities: vec![key],
            refresh_hint: 4,
            sequence_number: 5,
            wit_authorities: Vec::new(),
        };
        let bundle = Bundle::accepted(td(), wire);
        assert_eq!(decode_bundle(&td(), &encode_bundle(&bundle)), Ok(bundle));
        assert!(decode_bundle(&td(), &[0xff]).is_err());
    }

    /// The bytes that are in databases: a change of the format must still read them.
    #[test]
    fn the_format_of_today_stays_readable() {
        let row = [0x18, 0xac, 0x02, 0x20, 0x07];
        let bundle = decode_bundle(&td(), &row).expect("reads");
        assert_eq!((bundle.refresh_hint_seconds(), bundle.sequence_number(), bundle.is_empty()), (300, 7, true));
        assert_eq!(encode_bundle(&bundle), row);
    }
}
