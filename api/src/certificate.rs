//! X.509 certificates as this project reads them, parsed once: SPIFFE ID, serial, validity, key, usage.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
use der::{Decode, Encode};
use ironroot_text::pem::{self, PemError};
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName, SubjectKeyIdentifier,
};

use crate::spiffe_id::{SpiffeId, SpiffeIdError};

/// Largest certificate accepted, bytes.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// Why a certificate is not one we work with.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// Larger than [`MAX_CERTIFICATE_BYTES`].
    #[error("certificate is longer than {MAX_CERTIFICATE_BYTES} bytes")]
    TooLong,
    /// Not DER of an X.509 certificate, or an extension that does not parse.
    #[error("not a DER-encoded X.509 certificate")]
    Malformed,
    /// No URI SAN, or more than one. Source: X509-SVID.md §2.
    #[error("certificate has {0} URI subject alternative names, not exactly one")]
    UriNames(usize),
    /// The URI SAN is not a SPIFFE ID.
    #[error("URI subject alternative name is not a SPIFFE ID")]
    SpiffeId(#[source] SpiffeIdError),
    /// A signing certificate, or one without digitalSignature, where a leaf is needed. Source: X509-SVID.md §5.2.
    #[error("certificate is not an X509-SVID leaf: {0}")]
    NotALeaf(&'static str),
    /// PEM text that is not a list of certificates.
    #[error("not PEM of X.509 certificates")]
    Pem(#[from] PemError),
}

/// A parsed certificate beside its DER.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: CertificateDer<'static>,
    inner: x509_cert::Certificate,
    key_usage: Option<KeyUsage>,
    is_ca: bool,
}

impl Certificate {
    /// Parses DER; nothing may follow it.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateError::TooLong);
        }
        let malformed = |_| CertificateError::Malformed;
        let inner = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        let tbs = inner.tbs_certificate();
        let key_usage = tbs.get_extension::<KeyUsage>().map_err(malformed)?.map(|(_, usage)| usage);
        let is_ca = tbs.get_extension::<BasicConstraints>().map_err(malformed)?.is_some_and(|(_, b)| b.ca);
        Ok(Self { der: CertificateDer::from(der.to_vec()), inner, key_usage, is_ca })
    }

    /// Parses DER certificates laid end to end, as the Workload API sends them.
    pub fn parse_concatenated(mut der: &[u8]) -> Result<Vec<Self>, CertificateError> {
        let mut certificates = Vec::new();
        while !der.is_empty() {
            let header = der::Header::peek(&der::SliceReader::new(der).map_err(|_| CertificateError::Malformed)?)
                .map_err(|_| CertificateError::Malformed)?;
            let length = (header.encoded_len().and_then(|l| l + header.length()))
                .ok()
                .and_then(|l| usize::try_from(l).ok())
                .filter(|l| *l <= der.len())
                .ok_or(CertificateError::Malformed)?;
            certificates.push(Self::parse(&der[..length])?);
            der = &der[length..];
        }
        Ok(certificates)
    }

    /// Parses PEM text with one certificate or more. Whatever looks like a PEM frame is one of them, or an error.
    pub fn parse_pem(text: &str) -> Result<Vec<Self>, CertificateError> {
        pem::certificates(text)?.iter().map(|der| Self::parse(der)).collect()
    }

    /// A chain (DER, leaf first) up to the one of `authorities` that signed its last certificate, if it is among them: for people.
    /// What cannot be parsed is left out.
    pub fn chain_for_people(
        chain: impl IntoIterator<Item = impl AsRef<[u8]>>,
        authorities: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Vec<Self> {
        let mut chain: Vec<Self> = chain.into_iter().filter_map(|der| Self::parse(der.as_ref()).ok()).collect();
        let signer = chain.last().and_then(Self::authority_key_id);
        let mut authorities = authorities.into_iter().filter_map(|der| Self::parse(der.as_ref()).ok());
        chain.extend(authorities.find(|authority| signer.is_some() && authority.subject_key_id() == signer));
        chain
    }

    /// The bytes that were parsed, unchanged.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The fields this type does not name.
    pub fn inner(&self) -> &x509_cert::Certificate {
        &self.inner
    }

    /// The one SPIFFE ID, from the one URI SAN.
    pub fn spiffe_id(&self) -> Result<SpiffeId, CertificateError> {
        let names = self.inner.tbs_certificate().get_extension::<SubjectAltName>();
        let names = names.map_err(|_| CertificateError::Malformed)?.map(|(_, san)| san.0).unwrap_or_default();
        let uris: Vec<&str> = names
            .iter()
            .filter_map(
                |name| if let GeneralName::UniformResourceIdentifier(uri) = name { Some(uri.as_str()) } else { None },
            )
            .collect();
        //= X509-01 X509-SVID 2: "An X.509 SVID MUST contain exactly one URI SAN"
        //= X509-02 X509-SVID 2: "more than one URI SAN MUST reject the SVID"
        match uris[..] {
            [uri] => SpiffeId::parse(uri).map_err(CertificateError::SpiffeId),
            _ => Err(CertificateError::UriNames(uris.len())),
        }
    }

    /// The SPIFFE ID of a certificate that may authenticate: not a CA, digitalSignature, no certificate or CRL signing,
    /// both EKUs when any, an ID with a path. Source: X509-SVID.md §4, §5.2.
    pub fn leaf_spiffe_id(&self) -> Result<SpiffeId, CertificateError> {
        //= X509-07 X509-SVID 3.2: "Signing certificates MUST NOT be used for authentication purposes."
        if self.is_ca {
            return Err(CertificateError::NotALeaf("it is a CA"));
        }
        let usage = self.key_usage.ok_or(CertificateError::NotALeaf("it has no key usage"))?;
        //= X509-12 X509-SVID 4.3: "Leaf SVIDs MUST set `digitalSignature`."
        if !usage.digital_signature() {
            return Err(CertificateError::NotALeaf("its key usage lacks digitalSignature"));
        }
        //= X509-15 X509-SVID 5.2: "that `keyCertSign` and `cRLSign` are not set in the key usage extension"
        if usage.key_cert_sign() || usage.crl_sign() {
            return Err(CertificateError::NotALeaf("its key usage allows signing certificates or CRLs"));
        }
        //= X509-13 X509-SVID 4.4: "When included, fields `id-kp-serverAuth` and `id-kp-clientAuth` MUST be set."
        if !self.extended_key_usage_fits()? {
            return Err(CertificateError::NotALeaf("its extended key usage lacks serverAuth or clientAuth"));
        }
        let id = self.spiffe_id()?;
        //= X509-04 X509-SVID 3.1: "Leaf certificate SPIFFE IDs MUST have a non-root path component."
        if id.path().is_empty() {
            return Err(CertificateError::NotALeaf("its SPIFFE ID has no path"));
        }
        Ok(id)
    }

    fn extended_key_usage_fits(&self) -> Result<bool, CertificateError> {
        let usage = self.inner.tbs_certificate().get_extension::<ExtendedKeyUsage>();
        let has = |list: &[ObjectIdentifier], oid| list.contains(&oid);
        Ok(match usage.map_err(|_| CertificateError::Malformed)? {
            Some((_, eku)) => has(&eku.0, ID_KP_SERVER_AUTH) && has(&eku.0, ID_KP_CLIENT_AUTH),
            None => true,
        })
    }

    /// Whether basicConstraints says CA; without that extension it is none. Source: RFC 5280 §4.2.1.9.
    pub fn is_ca(&self) -> bool {
        self.is_ca
    }

    /// keyUsage, if present.
    pub fn key_usage(&self) -> Option<KeyUsage> {
        self.key_usage
    }

    /// The serial number in decimal, as SPIRE stores and prints it.
    pub fn serial_decimal(&self) -> String {
        decimal(self.inner.tbs_certificate().serial_number().as_bytes())
    }

    /// notBefore, UNIX seconds: the first second of validity.
    pub fn not_before_unix(&self) -> i64 {
        unix_seconds(self.inner.tbs_certificate().validity().not_before)
    }

    /// notAfter, UNIX seconds: the last second of validity. Source: RFC 5280 §4.1.2.5.
    pub fn not_after_unix(&self) -> i64 {
        unix_seconds(self.inner.tbs_certificate().validity().not_after)
    }

    /// The subject's public key as DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> Vec<u8> {
        self.inner.tbs_certificate().subject_public_key_info().to_der().expect("re-encodes what was decoded")
    }

    /// The subject key identifier, if present.
    pub fn subject_key_id(&self) -> Option<Vec<u8>> {
        let extension = self.inner.tbs_certificate().get_extension::<SubjectKeyIdentifier>().ok()?;
        extension.map(|(_, id)| id.0.as_bytes().to_vec())
    }

    /// The authority key identifier, if present.
    pub fn authority_key_id(&self) -> Option<Vec<u8>> {
        let extension = self.inner.tbs_certificate().get_extension::<AuthorityKeyIdentifier>().ok()?;
        extension.and_then(|(_, id)| id.key_identifier.map(|k| k.as_bytes().to_vec()))
    }
}

fn unix_seconds(time: x509_cert::time::Time) -> i64 {
    time.to_unix_duration().as_secs().try_into().unwrap_or(i64::MAX)
}

/// A big-endian number of any length in decimal.
fn decimal(big_endian: &[u8]) -> String {
    let mut digits = vec![0u8];
    for byte in big_endian {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 10) as u8;
            carry /= 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    }
    digits.iter().rev().map(|d| char::from(b'0' + d)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    };

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
        params.subject_alt_names = vec![uri("spiffe://td/w")];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        Certificate::parse(params.self_signed(&key).expect("signed").der()).expect("parsed")
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().expect("ascii"))
    }

    //= X509-13
    #[test]
    fn accepts_an_x509_svid_leaf() {
        assert_eq!(certificate(|_| ()).leaf_spiffe_id().expect("leaf").as_str(), "spiffe://td/w");
        certificate(|p| p.extended_key_usages.clear()).leaf_spiffe_id().expect("EKU may be absent");
    }

    //= X509-01 X509-02 X509-04 X509-07 X509-12 X509-13 X509-15
    #[test]
    fn refuses_what_may_not_authenticate() {
        let refused = |change: fn(&mut CertificateParams)| certificate(change).leaf_spiffe_id().expect_err("refused");
        assert_eq!(refused(|p| p.subject_alt_names.clear()), CertificateError::UriNames(0));
        assert_eq!(refused(|p| p.subject_alt_names.push(uri("spiffe://td/b"))), CertificateError::UriNames(2));
        assert!(matches!(refused(|p| p.subject_alt_names = vec![uri("https://td/w")]), CertificateError::SpiffeId(_)));
        assert!(matches!(refused(|p| p.subject_alt_names = vec![uri("spiffe://td")]), CertificateError::NotALeaf(_)));
        assert!(matches!(
            refused(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            CertificateError::NotALeaf(_)
        ));
        assert!(matches!(refused(|p| p.key_usages.clear()), CertificateError::NotALeaf(_)));
        assert!(matches!(refused(|p| p.key_usages.push(KeyUsagePurpose::CrlSign)), CertificateError::NotALeaf(_)));
        assert!(matches!(refused(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)), CertificateError::NotALeaf(_)));
        assert!(matches!(
            refused(|p| {
                p.extended_key_usages.pop();
            }),
            CertificateError::NotALeaf(_)
        ));
    }

    #[test]
    fn splits_concatenated_certificates_exactly() {
        let (a, b) = (certificate(|_| ()), certificate(|_| ()));
        let mut both = a.der().to_vec();
        both.extend_from_slice(b.der());
        let parsed = Certificate::parse_concatenated(&both).expect("two");
        assert_eq!(parsed.iter().map(|c| c.der().clone()).collect::<Vec<_>>(), [a.der().clone(), b.der().clone()]);
        assert!(Certificate::parse_concatenated(&both[..both.len() - 1]).is_err());
    }

    #[test]
    fn serial_is_decimal() {
        assert_eq!(decimal(&[0]), "0");
        assert_eq!(decimal(&[0x01, 0x00]), "256");
        assert_eq!(decimal(&[0xff; 16]), u128::MAX.to_string());
    }
}
