//! What the configuration says of an issuer.

use std::path::PathBuf;

use ironroot_api::jwt::Algorithm;
use ironroot_api::{SpiffeId, SpiffeIdError, TrustDomain};
use ironroot_attest::SelectorSet;

use crate::facts::entry::EXCHANGE_PARENTS;
use crate::facts::federation::EndpointUrl;

/// An issuer whose tokens are taken, and which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerPolicy {
    /// What the configuration calls it.
    pub name: String,
    /// The parent of entries that its tokens may have: [`exchange_parent`] of its name.
    pub parent: SpiffeId,
    /// The `iss` of its tokens, to the letter.
    pub url: String,
    /// For whom tokens may be: at least one, and no token may be for somebody else besides.
    pub audience: Vec<String>,
    /// What its tokens may be signed by.
    pub algorithms: Vec<Algorithm>,
    /// What each token must say, as selectors; entries ask for more.
    pub required: SelectorSet,
    /// Whether a token that has an ID is taken once.
    pub single_use: bool,
    /// Where its keys are.
    pub keys: KeySource,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A JWK Set that somebody else keeps current; read anew every few minutes.
    File(PathBuf),
    /// Where its discovery document says.
    Discovery {
        /// The document.
        url: EndpointUrl,
        /// By whom the issuer's web server is proven; none: by the authorities of the web that this machine knows.
        ca_file: Option<PathBuf>,
    },
}

/// The parent of entries that tokens of the issuer of that name may have: below `/spire/`, where no entry's identity and no agent can be.
pub fn exchange_parent(trust_domain: &TrustDomain, name: &str) -> Result<SpiffeId, SpiffeIdError> {
    trust_domain.id_with_path(&format!("{EXCHANGE_PARENTS}{name}"))
}
