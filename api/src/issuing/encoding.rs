//! A certificate's DER. Names and keys are copied as they came.

use std::time::Duration;

use const_oid::AssociatedOid;
use const_oid::db::rfc5912::ECDSA_WITH_SHA_256;
use der::asn1::{AnyRef, BitStringRef, Null, OctetString, UintRef};
use der::{DateTime, Decode, Encode, Sequence};
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;
use x509_cert::spki::AlgorithmIdentifier;
use x509_cert::time::{Time, Validity};

use super::serial::Serial;
use super::subject_key::SubjectKey;

/// How a certificate is signed.
pub type Algorithm = AlgorithmIdentifier<Null>;

/// As keys on P-256 sign. Source: RFC 5758 §3.2.
pub fn ecdsa_with_sha256() -> Algorithm {
    AlgorithmIdentifier { oid: ECDSA_WITH_SHA_256, parameters: None }
}

/// The certificate: what was signed, and its signature, as X.509 has it.
pub fn assemble(tbs: &[u8], algorithm: Algorithm, signature: &[u8]) -> Result<Vec<u8>, der::Error> {
    #[derive(Sequence)]
    struct Signed<'a> {
        tbs: AnyRef<'a>,
        algorithm: AlgorithmIdentifier<Null>,
        signature: BitStringRef<'a>,
    }
    let signature = BitStringRef::from_bytes(signature)?;
    Signed { tbs: AnyRef::from_der(tbs)?, algorithm, signature }.to_der()
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

/// The fields of a certificate.
#[derive(Clone, Debug)]
pub struct ToSign<'a> {
    /// Its number.
    pub serial: Serial,
    /// How it is signed.
    pub algorithm: Algorithm,
    /// DER Name.
    pub issuer: &'a [u8],
    /// See [`validity`].
    pub validity: Validity,
    /// DER Name.
    pub subject: &'a [u8],
    /// Whose it is.
    pub key: SubjectKey<'a>,
    /// In the order in which they are written.
    pub extensions: Vec<Extension>,
}

impl ToSign<'_> {
    /// The to-be-signed part, DER.
    pub fn to_der(self) -> Result<Vec<u8>, der::Error> {
        let serial = self.serial.to_be_bytes();
        let tbs = ToBeSigned {
            version: Version::V3,
            serial: UintRef::new(&serial)?,
            signature: self.algorithm,
            issuer: AnyRef::from_der(self.issuer)?,
            validity: self.validity,
            subject: AnyRef::from_der(self.subject)?,
            spki: AnyRef::from_der(self.key.spki_der())?,
            extensions: self.extensions,
        };
        tbs.to_der()
    }
}

/// An extension with that value.
pub fn extension<T: AssociatedOid + Encode>(critical: bool, value: &T) -> Result<Extension, der::Error> {
    Ok(Extension { extn_id: T::OID, critical, extn_value: OctetString::new(value.to_der()?)? })
}

/// From notBefore to notAfter, UNIX seconds.
pub fn validity(not_before: i64, not_after: i64) -> Result<Validity, der::Error> {
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
