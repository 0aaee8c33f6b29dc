//! One certificate of a chain, in the bytes that were signed.

use const_oid::ObjectIdentifier;
use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Reader, SliceReader};
use x509_cert::Certificate;
use x509_cert::ext::pkix::AuthorityInfoAccessSyntax;
use x509_cert::ext::pkix::name::GeneralName;

/// id-ad-caIssuers, RFC 5280 §4.2.2.1.
const CA_ISSUERS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.2");
/// Longest name or address shown to an operator, characters.
const MAX_SHOWN: usize = 200;

/// A parsed certificate beside its own bytes. Names and keys are the contents of their SEQUENCE, as webpki compares them.
pub(crate) struct Link<'a> {
    pub certificate: Certificate,
    /// TBSCertificate, header included.
    pub tbs: &'a [u8],
    /// Contents of the outer signatureAlgorithm, the same as of the inner one.
    pub algorithm: &'a [u8],
    pub signature: &'a [u8],
    pub issuer: &'a [u8],
    pub subject: &'a [u8],
    pub public_key_info: &'a [u8],
}

impl<'a> Link<'a> {
    /// `None` if it is not a DER certificate of RFC 5280, or names two signature algorithms.
    pub(crate) fn parse(der: &'a [u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let mut outer = SliceReader::new(contents(der)?).ok()?;
        let tbs = outer.tlv_bytes().ok()?;
        let algorithm = outer.tlv_bytes().ok()?;
        let signature = BitStringRef::decode(&mut outer).ok()?.as_bytes()?;
        let mut fields = SliceReader::new(contents(tbs)?).ok()?;
        let first = fields.tlv_bytes().ok()?;
        // [0] version, which the first version leaves out; then the serial number.
        if first.first() == Some(&0xa0) {
            fields.tlv_bytes().ok()?;
        }
        let inner_algorithm = fields.tlv_bytes().ok()?;
        let issuer = contents(fields.tlv_bytes().ok()?)?;
        let _validity = fields.tlv_bytes().ok()?;
        let subject = contents(fields.tlv_bytes().ok()?)?;
        let public_key_info = contents(fields.tlv_bytes().ok()?)?;
        let link =
            Self { certificate, tbs, algorithm: contents(algorithm)?, signature, issuer, subject, public_key_info };
        (inner_algorithm == algorithm).then_some(link)
    }

    /// Who issued it, for people.
    pub(crate) fn issuer_name(&self) -> String {
        shown(&self.certificate.tbs_certificate().issuer().to_string())
    }

    /// Where its issuer's certificate can be had, as the maker says (authorityInfoAccess, RFC 5280 §4.2.2.1).
    pub(crate) fn issuer_address(&self) -> Option<String> {
        let access = self.certificate.tbs_certificate().get_extension::<AuthorityInfoAccessSyntax>().ok()??.1;
        access.0.iter().find_map(|description| match &description.access_location {
            GeneralName::UniformResourceIdentifier(address) if description.access_method == CA_ISSUERS => {
                Some(shown(address.as_str()))
            }
            _ => None,
        })
    }
}

/// What the issuer of a certificate has signed (TBSCertificate), header included. Nothing in it can be changed without the
/// issuer; how the signature after it is written can.
pub(crate) fn signed_part(der: &[u8]) -> Option<&[u8]> {
    SliceReader::new(contents(der)?).ok()?.tlv_bytes().ok()
}

/// Algorithm and key of a SubjectPublicKeyInfo's contents: the algorithm's contents, and the key's bits.
pub(crate) fn algorithm_and_key(public_key_info: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = SliceReader::new(public_key_info).ok()?;
    let algorithm = contents(fields.tlv_bytes().ok()?)?;
    let key = BitStringRef::decode(&mut fields).ok()?.as_bytes()?;
    Some((algorithm, key))
}

/// What is behind the header.
pub(crate) fn contents(tlv: &[u8]) -> Option<&[u8]> {
    AnyRef::from_der(tlv).ok().map(|any| any.value())
}

/// A stranger's text on one line of a log.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}
