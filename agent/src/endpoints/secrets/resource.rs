//! What a name names, and how Envoy takes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use ironroot_api::TrustDomain;
use ironroot_api::pb::envoy_core::data_source::Specifier;
use ironroot_api::pb::envoy_core::{DataSource, TypedExtensionConfig};
use ironroot_api::pb::envoy_tls::secret::Type;
use ironroot_api::pb::envoy_tls::spiffe_cert_validator_config::TrustDomain as ValidatedDomain;
use ironroot_api::pb::envoy_tls::{CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate};
use prost::Message;
use prost_types::Any;
use tonic::Status;

use super::SdsConfig;
use super::conversation::{SECRET_TYPE, Validation, Wanted};
use crate::endpoints::serving::{Bundles, View, same_bundles};
use crate::identities::Identity;
use crate::pem;
use crate::server_answers::ShownBundle;

/// Envoy's extension that validates SPIFFE certificates, and the type of its configuration.
const VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
const VALIDATOR_TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// One secret, by reference.
#[derive(Clone, Debug)]
pub(super) enum Resource {
    /// A chain and its key.
    Certificate { name: String, identity: Arc<Identity> },
    /// Whom to believe.
    Bundles { name: String, bundles: Bundles, validation: Validation },
}

/// The resources that `wanted` names, or `Err` with the names that are nobody's here.
pub(super) fn named(wanted: &Wanted, config: &SdsConfig, view: &View) -> Result<Vec<Resource>, BTreeSet<String>> {
    if wanted.names.is_empty() {
        return Ok(all(wanted.validation, view));
    }
    let mut unknown = BTreeSet::new();
    let mut found = Vec::new();
    for name in &wanted.names {
        match one(name, wanted.validation, config, view) {
            Some(resource) => found.push(resource),
            None => drop(unknown.insert(name.clone())),
        }
    }
    if unknown.is_empty() { Ok(found) } else { Err(unknown) }
}

/// Whether `name` can only name bundles: no identity need be made for it.
pub(super) fn is_of_bundles(name: &str, config: &SdsConfig) -> bool {
    let is_trust_domain = name.strip_prefix("spiffe://").is_some_and(|name| TrustDomain::new(name).is_ok());
    name == config.default_bundle_name || name == config.default_all_bundles_name || is_trust_domain
}

fn all(validation: Validation, view: &View) -> Vec<Resource> {
    let one = |(trust_domain, bundle): (&TrustDomain, &ShownBundle)| {
        let name = trust_domain.id().to_string();
        Resource::Bundles { name, bundles: [(trust_domain.clone(), bundle.clone())].into(), validation }
    };
    let certificate = |identity: &Arc<Identity>| Resource::Certificate {
        name: identity.spiffe_id().to_string(),
        identity: identity.clone(),
    };
    view.bundles.iter().map(one).chain(view.theirs.iter().map(certificate)).collect()
}

/// In SPIRE's order, should a name be given to two things.
fn one(name: &str, validation: Validation, config: &SdsConfig, view: &View) -> Option<Resource> {
    let bundles = |bundles| Some(Resource::Bundles { name: name.to_owned(), bundles, validation });
    let bundle_of = |trust_domain: &TrustDomain| {
        let bundle = view.bundles.get(trust_domain)?;
        Some(Bundles::from([(trust_domain.clone(), bundle.clone())]))
    };
    if name == config.default_bundle_name {
        return bundles(bundle_of(&view.trust_domain)?);
    }
    if name == config.default_all_bundles_name {
        return bundles(view.bundles.clone());
    }
    if let Some((trust_domain, _)) = view.bundles.iter().find(|(domain, _)| domain.id().as_str() == name) {
        return bundles(bundle_of(trust_domain)?);
    }
    let by_id = view.theirs.iter().find(|identity| identity.spiffe_id().as_str() == name);
    let default = || view.theirs.first().filter(|_| name == config.default_svid_name);
    let identity = by_id.or_else(default)?.clone();
    Some(Resource::Certificate { name: name.to_owned(), identity })
}

impl Resource {
    /// Whether an Envoy that was sent the one sees nothing new in the other.
    pub fn looks_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Certificate { name, identity }, Self::Certificate { name: other_name, identity: other }) => {
                name == other_name && identity.looks_like(other)
            }
            (
                Self::Bundles { name, bundles, validation },
                Self::Bundles { name: other_name, bundles: other, validation: other_validation },
            ) => name == other_name && validation == other_validation && same_bundles(bundles, other),
            _ => false,
        }
    }

    /// Of the identity that it is, if it is one.
    pub fn spiffe_id(&self) -> Option<&str> {
        match self {
            Self::Certificate { identity, .. } => Some(identity.spiffe_id().as_str()),
            Self::Bundles { .. } => None,
        }
    }

    /// Whether it can be given in its form at all.
    pub fn check(&self) -> Result<(), Status> {
        match self {
            Self::Bundles { bundles, validation: Validation::TrustedCa, .. } if bundles.len() != 1 => {
                // Source of the text: SPIRE. A plain list would let each trust domain speak for the others.
                Err(Status::internal("unable to use \"SPIFFE validator\" on Envoy below 1.17"))
            }
            _ => Ok(()),
        }
    }

    /// As the answer carries it.
    pub fn to_any(&self) -> Any {
        let (name, secret) = match self {
            Self::Certificate { name, identity } => (name, Type::TlsCertificate(certificate(identity))),
            Self::Bundles { name, bundles, validation } => {
                (name, Type::ValidationContext(validation_context(bundles, *validation)))
            }
        };
        let secret = Secret { name: name.clone(), r#type: Some(secret) };
        Any { type_url: SECRET_TYPE.to_owned(), value: secret.encode_to_vec() }
    }
}

fn certificate(identity: &Identity) -> TlsCertificate {
    let key = pem::private_key(identity.key().pkcs8_der());
    TlsCertificate {
        certificate_chain: inline(pem::certificates(identity.svid().chain().iter()).into_bytes()),
        private_key: inline(key.as_bytes().to_vec()),
    }
}

fn validation_context(bundles: &Bundles, validation: Validation) -> CertificateValidationContext {
    let authorities = |bundle: &ShownBundle| inline(pem::certificates(bundle.authorities()).into_bytes());
    match validation {
        Validation::TrustedCa => CertificateValidationContext {
            trusted_ca: bundles.values().next().and_then(authorities),
            custom_validator_config: None,
        },
        Validation::Spiffe => {
            let domain = |(trust_domain, bundle): (&TrustDomain, &ShownBundle)| ValidatedDomain {
                name: trust_domain.to_string(),
                trust_bundle: authorities(bundle),
            };
            let config = SpiffeCertValidatorConfig { trust_domains: bundles.iter().map(domain).collect() };
            let config = Any { type_url: VALIDATOR_TYPE.to_owned(), value: config.encode_to_vec() };
            let validator = TypedExtensionConfig { name: VALIDATOR.to_owned(), typed_config: Some(config) };
            CertificateValidationContext { trusted_ca: None, custom_validator_config: Some(validator) }
        }
    }
}

fn inline(bytes: Vec<u8>) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes.into())) })
}
