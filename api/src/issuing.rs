//! Certificates that are composed here: their fields as SPIRE's templates have them, and their DER. Pure: time and randomness are arguments.
//!
//! Source: SPIRE pkg/server/credtemplate/builder.go; X509-SVID.md; RFC 5280.

mod encoding;
mod names;
mod serial;
mod subject_key;

use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
use der::asn1::{Ia5String, OctetString};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};

pub use encoding::{Algorithm, ToSign, assemble, ecdsa_with_sha256, extension, validity};
use names::svid_subject;
pub use names::{SvidNames, rdn};
pub use serial::Serial;
pub use subject_key::SubjectKey;

/// notBefore lies this far back, seconds, for peers whose clocks are behind. Source: SPIRE `x509util.NotBeforeCushion`.
pub const NOT_BEFORE_CUSHION: i64 = 10;

/// Who signs a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Signer<'a> {
    /// The subject of its own certificate, DER.
    pub name: &'a [u8],
    /// The subject key identifier in there.
    pub key_id: &'a [u8],
    /// How its key signs.
    pub algorithm: Algorithm,
}

/// The to-be-signed part of an X509-SVID for `id`, DER. `span`: notBefore and notAfter, UNIX seconds.
pub fn svid(
    names: SvidNames<'_>,
    key: SubjectKey<'_>,
    signer: Signer<'_>,
    serial: Serial,
    span: (i64, i64),
) -> Result<Vec<u8>, der::Error> {
    let extensions = vec![
        //= X509-10 X509-SVID 4.3: "The key usage extension MUST be set on all SVIDs, and MUST be marked critical."
        extension(true, &leaf_usage(key))?,
        extension(false, &ExtendedKeyUsage(vec![ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH]))?,
        //= X509-08 X509-SVID 4.1: "leaf certificates MUST set the `cA` field to `false`"
        extension(true, &BasicConstraints { ca: false, path_len_constraint: None })?,
        extension(false, &SubjectKeyIdentifier(OctetString::new(key.id())?))?,
        extension(false, &authority_key_id(signer.key_id)?)?,
        extension(false, &alternative_names(names.dns_names, names.id.as_str())?)?,
    ];
    let subject = svid_subject(names)?;
    let validity = validity(span.0, span.1)?;
    ToSign { serial, algorithm: signer.algorithm, issuer: signer.name, validity, subject: &subject, key, extensions }
        .to_der()
}

/// What the key of an SVID may be used for: as SPIRE has it, but keys that can only sign may only sign. Source: RFC 9881 §5, where keys of
/// ML-DSA must be for neither encipherment nor agreement.
fn leaf_usage(key: SubjectKey<'_>) -> KeyUsage {
    let signs = KeyUsages::DigitalSignature;
    match key.ml_dsa() {
        Some(_) => KeyUsage(signs.into()),
        None => KeyUsage(signs | KeyUsages::KeyEncipherment | KeyUsages::KeyAgreement),
    }
}

/// Names a signer by its key.
pub fn authority_key_id(key_id: &[u8]) -> Result<AuthorityKeyIdentifier, der::Error> {
    let key_identifier = Some(OctetString::new(key_id)?);
    Ok(AuthorityKeyIdentifier { key_identifier, authority_cert_issuer: None, authority_cert_serial_number: None })
}

/// DNS names first, then the ID, as Go writes them.
pub fn alternative_names(dns_names: &[String], id: &str) -> Result<SubjectAltName, der::Error> {
    let mut names = Vec::with_capacity(dns_names.len() + 1);
    for dns_name in dns_names {
        //= X509-03 X509-SVID 2: "MAY contain any number of other SAN field types, including DNS SANs"
        names.push(GeneralName::DnsName(Ia5String::new(dns_name)?));
    }
    names.push(GeneralName::UniformResourceIdentifier(Ia5String::new(id)?));
    Ok(SubjectAltName(names))
}
