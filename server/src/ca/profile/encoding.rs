//! A certificate's DER. Names and keys are copied as they came.

use std::time::Duration;

use const_oid::AssociatedOid;
use const_oid::db::rfc5912::{ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, SHA_256_WITH_RSA_ENCRYPTION};
use der::asn1::{AnyRef, BitStringRef, Null, OctetString, UintRef};
use der::{DateTime, Decode, Encode, Sequence};
use ironroot_hsm::KeyKind;
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;
use x509_cert::spki::AlgorithmIdentifier;
use x509_cert::time::{Time, Validity};

use super::error::ProfileError;
use super::serial::Serial;
use super::subject_key::SubjectKey;

/// The certificate: what was signed, and its signature by a key of this kind, as X.509 has it.
pub(in crate::ca) fn assemble(tbs: &[u8], signer: KeyKind, signature: &[u8]) -> Result<Vec<u8>, ProfileError> {
    #[derive(Sequence)]
    struct Signed<'a> {
        tbs: AnyRef<'a>,
        algorithm: AlgorithmIdentifier<Null>,
        signature: BitStringRef<'a>,
    }
    let signature = BitStringRef::from_bytes(signature)?;
    Ok(Signed { tbs: AnyRef::from_der(tbs)?, algorithm: algorithm(signer), signature }.to_der()?)
}

/// Names and key are copied as they came: an issuer that is re-encoded may no longer match.
#[derive(Sequence)]
struct ToBeSigned<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: Version,
    serial: UintRef<'a>,
    signature: AlgorithmIdentifier<Null>,
    issuer: AnyRef<'a>,
    validity: Validity,
    subject: AnyRef<'a>,
    spki: AnyRef<'a>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

/// How a key of this kind signs certificates: as Go does. ECDSA has no parameters, RSA has NULL. Source: RFC 5758 §3.2, RFC 4055 §5.
fn algorithm(signer: KeyKind) -> AlgorithmIdentifier<Null> {
    let (oid, parameters) = match signer {
        KeyKind::EcP256 => (ECDSA_WITH_SHA_256, None),
        KeyKind::EcP384 => (ECDSA_WITH_SHA_384, None),
        KeyKind::Rsa2048 | KeyKind::Rsa4096 => (SHA_256_WITH_RSA_ENCRYPTION, Some(Null)),
    };
    AlgorithmIdentifier { oid, parameters }
}

pub(super) fn encode(
    serial: Serial,
    (issuer, signer): (&[u8], KeyKind),
    validity: Validity,
    subject: &[u8],
    key: SubjectKey<'_>,
    extensions: Vec<Extension>,
) -> Result<Vec<u8>, ProfileError> {
    let serial = serial.0.to_be_bytes();
    let tbs = ToBeSigned {
        version: Version::V3,
        serial: UintRef::new(&serial)?,
        signature: algorithm(signer),
        issuer: AnyRef::from_der(issuer)?,
        validity,
        subject: AnyRef::from_der(subject)?,
        spki: AnyRef::from_der(key.spki_der)?,
        extensions,
    };
    Ok(tbs.to_der()?)
}

pub(super) fn extension<T: AssociatedOid + Encode>(critical: bool, value: &T) -> Result<Extension, der::Error> {
    Ok(Extension { extn_id: T::OID, critical, extn_value: OctetString::new(value.to_der()?)? })
}

pub(super) fn validity(not_before: i64, not_after: i64) -> Result<Validity, der::Error> {
    Ok(Validity::new(time(not_before)?, time(not_after)?))
}

/// UTCTime until 2049, GeneralizedTime from 2050. Source: RFC 5280 §4.1.2.5.
fn time(unix: i64) -> Result<Time, der::Error> {
    let since_1970 = Duration::from_secs(unix.max(0).unsigned_abs());
    //= X509-21 RFC 5280 4.1.2.5: "MUST always encode certificate validity dates through the year 2049 as UTCTime"
    Ok(Time::from(DateTime::from_unix_duration(since_1970)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    //= X509-21 FLT-S11
    #[test]
    fn years_from_2050_are_written_as_generalized_time() {
        for (unix, generalized) in [(2_524_607_999, false), (2_524_608_000, true), (0, false)] {
            assert_eq!(matches!(time(unix).unwrap(), Time::GeneralTime(_)), generalized, "{unix}");
        }
        assert!(time(i64::MAX).is_err(), "beyond year 9999");
    }
}
