//! The ways to attest that are configured: a line for each in each of the lists here, a file for what it is told.

mod http_challenge;
mod sshpop;
mod together;
mod tpm;
mod tpm2;
mod tpm_devid;
mod x509pop;

use std::path::Path;

use ironroot_shell::settings::Section;
use thiserror::Error;

pub use http_challenge::HttpChallengeConfig;
pub use sshpop::{SshAuthoritiesError, SshPopConfig};
pub use together::TogetherConfig;
pub use tpm::{MakersDirectoryError, TpmPluginConfig};
pub use tpm_devid::TpmDevIdConfig;
pub use tpm2::{Admission, Tpm2Config};
pub use x509pop::{CaBundleError, X509PopConfig, X509PopMode};

use super::{ManufacturerFileError, PROGRAM};
use crate::node_attestation::{Attestor, JOIN_TOKEN, Together};

/// How devices may prove who they are; at least one way is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAttestors {
    /// Single-use tokens, made by `token generate`.
    pub join_token: bool,
    /// By the device's TPM; none if that way is shut.
    pub tpm2: Option<Tpm2Config>,
    /// By its TPM, as a plugin of SPIRE's has it; none if that way is shut.
    pub tpm: Option<TpmPluginConfig>,
    /// By a certificate for a key in its TPM; none if that way is shut.
    pub tpm_devid: Option<TpmDevIdConfig>,
    /// By a certificate that the device was given; none if that way is shut.
    pub x509pop: Option<X509PopConfig>,
    /// By what a host serves at its name; none if that way is shut.
    pub http_challenge: Option<HttpChallengeConfig>,
    /// By an SSH host certificate; none if that way is shut.
    pub sshpop: Option<SshPopConfig>,
    /// Ways that count only together with others.
    pub together: Vec<TogetherConfig>,
    /// Ways that count by themselves as well, though others name them.
    pub alone: Vec<String>,
}

/// Why a file that an attestor needs cannot be used. Each message names the file.
#[derive(Debug, Error)]
pub enum AttestorFileError {
    /// The TPM makers' CAs.
    #[error("cannot take the TPM makers' CAs")]
    Manufacturers(#[from] ManufacturerFileError),
    /// The TPM makers' CAs in a directory.
    #[error("cannot take the TPM makers' CAs")]
    MakersDirectory(#[from] MakersDirectoryError),
    /// The authorities of devices' certificates.
    #[error("cannot take the authorities of devices' certificates")]
    CaBundle(#[from] CaBundleError),
    /// The authorities of hosts' SSH certificates.
    #[error("cannot take the authorities of hosts' SSH certificates")]
    SshAuthorities(#[from] SshAuthoritiesError),
}

impl NodeAttestors {
    /// The attestors, with what the files hold that the configuration names. Authorities that have ended by `now_unix` (UNIX seconds)
    /// are told.
    pub fn load(&self, now_unix: i64) -> Result<Vec<Attestor>, AttestorFileError> {
        let mut attestors = Vec::new();
        for name in TYPES {
            let together = self.together.iter().find(|together| together.first == name);
            let is_on = (name != JOIN_TOKEN || self.join_token) && (together.is_some() || self.counts_alone(name));
            let Some(first) = self.load_one(name, now_unix)?.filter(|_| is_on) else { continue };
            attestors.push(match together {
                None => first,
                Some(together) => {
                    let others: Result<Vec<_>, _> =
                        together.others.iter().map(|name| self.load_one(name, now_unix)).collect();
                    Attestor::Together(Box::new(Together::new(first, others?.into_iter().flatten().collect())))
                }
            });
        }
        Ok(attestors)
    }

    /// Whoever has only what another way asks for besides proves nothing. A token is given out for one device by an operator, and
    /// alone if its block is there.
    fn counts_alone(&self, name: &str) -> bool {
        let is_named = self.together.iter().any(|together| together.others.iter().any(|other| other == name));
        name == JOIN_TOKEN || !is_named || self.alone.iter().any(|alone| alone == name)
    }

    /// The attestor of that type, if this server knows whom it believes.
    fn load_one(&self, name: &str, now_unix: i64) -> Result<Option<Attestor>, AttestorFileError> {
        Ok(match name {
            JOIN_TOKEN => Some(Attestor::JoinToken),
            "tpm2" => self.tpm2.as_ref().map(|tpm2| tpm2.load(now_unix)).transpose()?,
            "tpm" => self.tpm.as_ref().map(|tpm| tpm.load(now_unix)).transpose()?,
            "tpm_devid" => self.tpm_devid.as_ref().map(|tpm_devid| tpm_devid.load(now_unix)).transpose()?,
            "http_challenge" => self.http_challenge.as_ref().map(HttpChallengeConfig::load),
            "sshpop" => self.sshpop.as_ref().map(SshPopConfig::load).transpose()?,
            _ => self.x509pop.as_ref().map(|x509pop| x509pop.load(now_unix)).transpose()?,
        })
    }
}

/// The ways to attest that are here.
const TYPES: [&str; 7] = [JOIN_TOKEN, "tpm2", "tpm", "tpm_devid", "x509pop", "sshpop", "http_challenge"];

/// What an operator is told of authorities in the file at `path` that have ended.
fn told_of_ended(path: &Path, ended: &[String]) -> Option<String> {
    let all = ended.join(", ");
    let told = || format!("{}: {all}: no device is taken any more whose certificate it vouches for", path.display());
    (!ended.is_empty()).then(told)
}

/// Reads the `NodeAttestor` blocks, reporting every mistake. `None` if one of them cannot be used.
pub(super) fn read(plugins: &Section<'_>) -> Option<NodeAttestors> {
    let mut attestors = NodeAttestors {
        join_token: false,
        tpm2: None,
        tpm: None,
        tpm_devid: None,
        x509pop: None,
        http_challenge: None,
        sshpop: None,
        together: Vec::new(),
        alone: Vec::new(),
    };
    let is_none = plugins.has_no_plugin("NodeAttestor");
    let found = if is_none { Vec::new() } else { plugins.plugins("NodeAttestor") };
    let known = found.len();
    let found_names: Vec<String> = found.iter().map(|plugin| plugin.name.clone()).collect();
    for plugin in found {
        // A token names no device, so nothing is named by one together with it.
        if plugin.name != JOIN_TOKEN {
            attestors.together.extend(together::read(&plugin, &TYPES));
            attestors.alone.extend(together::read_alone(&plugin).then(|| plugin.name.clone()));
        }
        match plugin.name.as_str() {
            "join_token" => {
                attestors.join_token = true;
                plugin.data.finish();
            }
            "tpm2" => attestors.tpm2 = tpm2::read(&plugin.data),
            "tpm" => attestors.tpm = tpm::read(&plugin.data),
            "tpm_devid" => attestors.tpm_devid = tpm_devid::read(&plugin.data),
            "x509pop" => attestors.x509pop = x509pop::read(&plugin.data),
            "http_challenge" => attestors.http_challenge = http_challenge::read(&plugin.data),
            "sshpop" => attestors.sshpop = sshpop::read(&plugin.data),
            _ => {
                let reason = format!(
                    "not supported by {PROGRAM} yet: use \"tpm2\", \"tpm\", \"tpm_devid\", \"x509pop\", \"sshpop\", \"http_challenge\" or \"join_token\""
                );
                plugins.plugin_mistake("NodeAttestor", &plugin, reason);
            }
        }
    }
    let configured: Vec<&str> = found_names.iter().map(String::as_str).collect();
    together::check(plugins, &attestors.together, &configured);
    // A plugin that is there and wrong is not none.
    if is_none {
        attestors.join_token = true;
        plugins.warn("NodeAttestor", "none is configured: devices attest with join tokens, as in SPIRE");
        return Some(attestors);
    }
    let hint = "no device could attest: add NodeAttestor \"tpm2\", \"tpm\", \"tpm_devid\", \"x509pop\", \"sshpop\", \"http_challenge\" or \"join_token\"";
    plugins.required("NodeAttestor", (known > 0).then_some(attestors), hint)
}

#[cfg(test)]
mod tests {
    use ironroot_shell::settings::Settings;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn authorities_that_have_ended_are_told_with_their_file_and_the_others_count_on() {
        let directory = tempfile::tempdir().expect("directory");
        let bundle = directory.path().join("bundle.pem");
        let root = |name: &str, year| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.not_after = date_time_ymd(year, 1, 1);
            params.self_signed(&KeyPair::generate().expect("key")).expect("signed").pem()
        };
        std::fs::write(&bundle, root("Toy Ended", 2001) + &root("Toy Valid", 4000)).expect("written");
        let plugin = |kind: &str, data: &str| format!("NodeAttestor \"{kind}\" {{ plugin_data {{\n{data}\n}} }}\n");
        let path = bundle.display();
        let text = [
            "plugins {\n".to_owned(),
            plugin("tpm2", &format!("admission = \"manufacturer\"\nmanufacturer_ca_path = \"{path}\"")),
            plugin("x509pop", &format!("ca_bundle_path = \"{path}\"")),
            "}\n".to_owned(),
        ];
        let settings = Settings::parse(Path::new("server.conf"), &text.concat()).expect("HCL").looking();
        let checked = settings.check(|root| read(&root.block("plugins"))).expect("taken");
        let [makers, devices] = &checked.warnings[..] else { panic!("{:?}", checked.warnings) };
        for (warning, key) in [(makers, "manufacturer_ca_path: "), (devices, "ca_bundle_path: ")] {
            let told = format!("{path}: \"CN=Toy Ended\" ended at 2001-01-01");
            assert!(warning.contains(key) && warning.contains(&told) && !warning.contains("Valid"), "{warning}");
        }
        checked.value.load(0).expect("both are read");
    }
}
