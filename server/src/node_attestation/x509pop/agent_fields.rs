//! What an agent with a certificate may be called by.

use ironroot_api::TrustDomain;
use ironroot_attest::node::x509pop::{DeviceCertificate, Names, NamesKind};

use super::TYPE;
use crate::node_attestation::agent_path::{Field, Kind, Value};

/// The fields of `agent_path_template`. Source: SPIRE, `agentPathTemplateData`, and of Go's x509.Certificate what is a text.
pub const X509POP_FIELDS: &[Field] = &[
    ("PluginName", Kind::Text),
    ("TrustDomain", Kind::Text),
    ("Fingerprint", Kind::Text),
    ("SerialNumberHex", Kind::Text),
    ("SVIDPathTrimmed", Kind::Text),
    ("URISanSelectors", Kind::Map),
    ("DNSNames", Kind::List),
    ("EmailAddresses", Kind::List),
    ("Subject.CommonName", Kind::Text),
    ("Subject.SerialNumber", Kind::Text),
    ("Subject.Country", Kind::List),
    ("Subject.Organization", Kind::List),
    ("Subject.OrganizationalUnit", Kind::List),
    ("Subject.Locality", Kind::List),
    ("Subject.Province", Kind::List),
    ("Subject.StreetAddress", Kind::List),
    ("Subject.PostalCode", Kind::List),
    ("Issuer.CommonName", Kind::Text),
    ("Issuer.SerialNumber", Kind::Text),
    ("Issuer.Country", Kind::List),
    ("Issuer.Organization", Kind::List),
    ("Issuer.OrganizationalUnit", Kind::List),
    ("Issuer.Locality", Kind::List),
    ("Issuer.Province", Kind::List),
    ("Issuer.StreetAddress", Kind::List),
    ("Issuer.PostalCode", Kind::List),
];

/// One of these fields. None for a key of `URISanSelectors` that the certificate does not have.
pub(super) fn value(
    name: &str,
    certificate: &DeviceCertificate,
    trust_domain: &TrustDomain,
    exchanged_path: &str,
) -> Option<Value> {
    let alternative = certificate.alternative_names();
    Some(match name.split_once('.') {
        None => match name {
            "PluginName" => TYPE.into(),
            "TrustDomain" => trust_domain.as_str().into(),
            "Fingerprint" => Value::Text(certificate.fingerprint()),
            "SerialNumberHex" => certificate.serial_number().into(),
            "SVIDPathTrimmed" => exchanged_path.into(),
            "DNSNames" => Value::List(alternative.dns_names.clone()),
            "EmailAddresses" => Value::List(alternative.email_addresses.clone()),
            _ => return None,
        },
        Some(("URISanSelectors", key)) => Value::Text(alternative.pairs(trust_domain.as_str()).remove(key)?),
        Some(("Subject", attribute)) => of_name(certificate.subject(), attribute)?,
        Some(("Issuer", attribute)) => of_name(certificate.issuer(), attribute)?,
        Some(_) => return None,
    })
}

fn of_name(names: &Names, attribute: &str) -> Option<Value> {
    let last = |kind| Some(names.last(kind).unwrap_or_default().into());
    let all = |kind| Some(Value::List(names.all(kind).map(str::to_owned).collect()));
    match attribute {
        "CommonName" => last(NamesKind::CommonName),
        "SerialNumber" => last(NamesKind::SerialNumber),
        "Country" => all(NamesKind::Country),
        "Organization" => all(NamesKind::Organization),
        "OrganizationalUnit" => all(NamesKind::OrganizationalUnit),
        "Locality" => all(NamesKind::Locality),
        "Province" => all(NamesKind::Province),
        "StreetAddress" => all(NamesKind::StreetAddress),
        "PostalCode" => all(NamesKind::PostalCode),
        _ => None,
    }
}
