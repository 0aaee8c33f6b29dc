//! The ways to attest that are configured: a line for each in each of the lists here, a file for what it is told.

mod tpm2;
mod x509pop;

use ironroot_shell::settings::Section;
use thiserror::Error;

pub use tpm2::{Admission, Tpm2Config};
pub use x509pop::{CaBundleError, X509PopConfig};

use super::{ManufacturerFileError, PROGRAM};
use crate::node_attestation::Attestor;

/// How devices may prove who they are; at least one way is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAttestors {
    /// Single-use tokens, made by `token generate`.
    pub join_token: bool,
    /// By the device's TPM; none if that way is shut.
    pub tpm2: Option<Tpm2Config>,
    /// By a certificate that the device was given; none if that way is shut.
    pub x509pop: Option<X509PopConfig>,
}

/// Why a file that an attestor needs cannot be used. Each message names the file.
#[derive(Debug, Error)]
pub enum AttestorFileError {
    /// The TPM makers' CAs.
    #[error("cannot take the TPM makers' CAs")]
    Manufacturers(#[from] ManufacturerFileError),
    /// The authorities of devices' certificates.
    #[error("cannot take the authorities of devices' certificates")]
    CaBundle(#[from] CaBundleError),
}

impl NodeAttestors {
    /// The attestors, with what the files hold that the configuration names.
    pub fn load(&self) -> Result<Vec<Attestor>, AttestorFileError> {
        let join_token = self.join_token.then_some(Attestor::JoinToken);
        let tpm2 = self.tpm2.as_ref().map(Tpm2Config::load).transpose()?;
        let x509pop = self.x509pop.as_ref().map(X509PopConfig::load).transpose()?;
        Ok(join_token.into_iter().chain(tpm2).chain(x509pop).collect())
    }
}

/// Reads the `NodeAttestor` blocks, reporting every mistake. `None` if one of them cannot be used.
pub(super) fn read(plugins: &Section<'_>) -> Option<NodeAttestors> {
    let mut attestors = NodeAttestors { join_token: false, tpm2: None, x509pop: None };
    let found = plugins.plugins("NodeAttestor");
    let known = found.len();
    for plugin in found {
        match plugin.name.as_str() {
            "join_token" => {
                attestors.join_token = true;
                plugin.data.finish();
            }
            "tpm2" => attestors.tpm2 = tpm2::read(&plugin.data),
            "x509pop" => attestors.x509pop = x509pop::read(&plugin.data),
            _ => {
                let reason = format!("not supported by {PROGRAM} yet: use \"tpm2\", \"x509pop\" or \"join_token\"");
                plugins.plugin_mistake("NodeAttestor", &plugin, reason);
            }
        }
    }
    // A plugin that is there and wrong, or switched off, is not none.
    if known == 0 && !plugins.has("NodeAttestor") {
        attestors.join_token = true;
        plugins.warn("NodeAttestor", "none is configured: devices attest with join tokens, as in SPIRE");
        return Some(attestors);
    }
    let hint = "no device could attest: add NodeAttestor \"tpm2\" { } or NodeAttestor \"join_token\" { }";
    plugins.required("NodeAttestor", (known > 0).then_some(attestors), hint)
}
