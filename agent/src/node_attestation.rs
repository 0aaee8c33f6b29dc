//! How a device proves who it is to its server.
//!
//! ```text
//!  read(plugins) ─► NodeAttestor<()> ─ on(TPM) ─► NodeAttestor<TpmConfig> ─ open ─► Attestor ─ begin ─► Proof
//!                                                                     conversation: data ─► respond ─► settle
//! ```
//! Each way is a file below: what it is told, what it says first, how it answers a challenge, and why it fails. A further one is
//! a file, and a line in each of the lists here.

mod boot_log;
mod conversation;
mod endorsement_record;
mod http_challenge;
mod ima_list;
mod join_token;
mod kept_key;
mod sshpop;
mod together;
mod tpm;
mod tpm2;
mod tpm_devid;
mod x509pop;

use std::path::Path;

use ironroot_api::TrustDomain;
use ironroot_api::pb::types::AttestationData;
use ironroot_attest::node::together::{TogetherRefusal, join, split, type_of};
use ironroot_attest::node::tpm2::ImaRequest;
use ironroot_attest::tpm::Tpm;
use ironroot_shell::command_line::code_name;
use ironroot_shell::settings::{Plugin, Section};
use thiserror::Error;
use tonic::Status;

use crate::agent_key::{AgentKey, Keep, KeyError, KeyStore};
use crate::config::{TpmConfig, TpmKeys};
pub use boot_log::BootLogFile;
pub(crate) use boot_log::default_paths;
pub use conversation::{Attested, attest};
pub use endorsement_record::remembered;
pub use http_challenge::{HostName, HttpChallengeFailure};
pub use ima_list::ImaListFile;
pub(crate) use ima_list::default_path as default_ima_list;
pub use join_token::JoinToken;
pub use sshpop::{HostFiles, NotAHostKey, SshPopFailure};
use together::TOGETHER_WITH;
pub use tpm::TpmFailure;
pub use tpm_devid::{DevIdFileError, DevIdFiles, TpmDevIdFailure};
pub use tpm2::{Device, Tpm2Failure};
pub use x509pop::{CertificateSource, KeySource, X509PopFailure};

/// How the device proves who it is. `Chip`: what is known of its TPM, from nothing over its configuration to an open one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeAttestor<Chip = TpmConfig> {
    /// With a single-use token; none if the agent has attested before and keeps its key.
    JoinToken(Option<JoinToken>),
    /// By its TPM: the endorsement key says which device it is, a quote what was started on it.
    Tpm2(Chip),
    /// By its TPM, as a plugin of SPIRE's has it: the endorsement key says which device it is.
    Tpm(Chip),
    /// With a certificate that it was given for a key in its TPM.
    TpmDevId(DevIdFiles, Chip),
    /// With a certificate that it was given.
    X509Pop(CertificateSource<Chip>),
    /// With an SSH host certificate that it was given.
    SshPop(HostFiles),
    /// By what it serves by HTTP, at its name.
    HttpChallenge(HostName),
    /// By each of these, two or more, in one conversation; the first says what the agent is called.
    Together(Vec<NodeAttestor<Chip>>),
}

/// What attests.
pub type Attestor = NodeAttestor<Device>;

/// Why attestation failed.
#[derive(Debug, Error)]
pub enum AttestationError {
    /// No way to attest is left: the token is used up or was never given.
    #[error("there is no join token to attest with; create one on the server and configure it")]
    NoToken,
    /// The TPM did not do its part.
    #[error(transparent)]
    Tpm2(#[from] Tpm2Failure),
    /// The TPM did not do its part of what a plugin of SPIRE's asks.
    #[error(transparent)]
    Tpm(#[from] TpmFailure),
    /// The DevID, or the TPM that it is in, did not do its part.
    #[error(transparent)]
    TpmDevId(#[from] TpmDevIdFailure),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    X509Pop(#[from] X509PopFailure),
    /// The SSH certificate or its key cannot be used.
    #[error(transparent)]
    SshPop(#[from] SshPopFailure),
    /// The server could not be answered by HTTP.
    #[error(transparent)]
    HttpChallenge(#[from] HttpChallengeFailure),
    /// The server refused, or the connection broke.
    #[error("the server refused attestation: {}: {}", code_name(.0.code()), .0.message())]
    Server(#[source] Status),
    /// The agent's key could not be made or kept.
    #[error("the agent's key could not be used")]
    Key(#[from] KeyError),
    /// The server's challenge is not that of several ways.
    #[error(transparent)]
    Together(#[from] TogetherRefusal),
    /// The server does not follow the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
}

impl NodeAttestor<()> {
    /// The one `NodeAttestor` of the `plugins` block, with what it says of the TPM; `token` is what the `agent` block gave.
    pub(crate) fn read(plugins: &Section<'_>, token: Option<JoinToken>) -> Option<(Self, TpmKeys)> {
        let hint = "the device must prove who it is: add NodeAttestor \"tpm2\" { plugin_data { } } or NodeAttestor \"join_token\" { }";
        let blocks = plugins.plugins(KIND);
        let with = |plugin: &Plugin<'_>| {
            let others = plugin.data.strings(TOGETHER_WITH).filter(|others| !others.is_empty())?;
            Some((plugin.name.clone(), others))
        };
        if let Some((first, others)) = blocks.iter().find_map(with) {
            return together::read(plugins, blocks, (&first, &others), token);
        }
        let plugin = plugins.required(KIND, plugins.only_plugin(KIND), hint)?;
        Self::read_one(plugins, &plugin, token)
    }

    fn read_one(plugins: &Section<'_>, plugin: &Plugin<'_>, token: Option<JoinToken>) -> Option<(Self, TpmKeys)> {
        let (data, is_token_given) = (&plugin.data, token.is_some());
        // Read already, by whoever chose this plugin; an empty list names nobody.
        data.strings(TOGETHER_WITH);
        let read = match plugin.name.as_str() {
            join_token::TYPE => Some((Self::JoinToken(token), TpmKeys::default())),
            tpm2::TYPE => Some((Self::Tpm2(()), TpmKeys::read(data))),
            tpm::TYPE => Some((Self::Tpm(()), TpmKeys::read_of_rsa(data))),
            tpm_devid::TYPE => {
                let (files, tpm) = tpm_devid::read(data);
                files.map(|files| (Self::TpmDevId(files, ()), tpm))
            }
            x509pop::TYPE => x509pop::read(data).map(|(source, tpm)| (Self::X509Pop(source), tpm)),
            sshpop::TYPE => sshpop::read(data).map(|files| (Self::SshPop(files), TpmKeys::default())),
            http_challenge::TYPE => {
                http_challenge::read(data).map(|name| (Self::HttpChallenge(name), TpmKeys::default()))
            }
            _ => {
                let reason = "not supported by ironroot-agent yet: use \"tpm2\", \"tpm\", \"tpm_devid\", \"x509pop\", \"sshpop\", \"http_challenge\" or \"join_token\"";
                plugins.plugin_mistake(KIND, plugin, reason);
                return None;
            }
        };
        data.finish();
        let (attestor, tpm) = read?;
        if is_token_given && !matches!(attestor, Self::JoinToken(_)) {
            plugins.warn(KIND, format!("the join token is not used: the device attests with {:?}", plugin.name));
        }
        Some((attestor, tpm))
    }

    /// Once all plugins have said which TPM it is.
    pub(crate) fn on(self, tpm: &TpmConfig) -> NodeAttestor {
        match self {
            Self::JoinToken(token) => NodeAttestor::JoinToken(token),
            Self::Tpm2(()) => NodeAttestor::Tpm2(tpm.clone()),
            Self::Tpm(()) => NodeAttestor::Tpm(tpm.clone()),
            Self::TpmDevId(files, ()) => NodeAttestor::TpmDevId(files, tpm.clone()),
            Self::X509Pop(source) => NodeAttestor::X509Pop(source.on(|()| tpm.clone())),
            Self::SshPop(files) => NodeAttestor::SshPop(files),
            Self::HttpChallenge(name) => NodeAttestor::HttpChallenge(name),
            Self::Together(parts) => NodeAttestor::Together(parts.into_iter().map(|part| part.on(tpm)).collect()),
        }
    }
}

impl NodeAttestor {
    /// The same with the token of another server, where it takes one.
    pub(crate) fn with_token(self, token: Option<&JoinToken>) -> Self {
        match self {
            Self::JoinToken(_) => Self::JoinToken(token.cloned()),
            Self::Together(parts) => Self::Together(parts.into_iter().map(|part| part.with_token(token)).collect()),
            other => other,
        }
    }

    /// What attests, with its chip, which is open, if it has one, and notes in `directory`.
    pub(crate) fn open(self, directory: &Path, notes: &Path, chip: Option<(&TpmConfig, Tpm)>) -> Attestor {
        let device = chip.map(|(tpm, opened)| Device::on(tpm, opened, directory, notes));
        self.with(device.as_ref())
    }

    fn with(self, device: Option<&Device>) -> Attestor {
        let device_there = || device.expect("whoever has a chip has opened it").clone();
        match self {
            Self::JoinToken(token) => Attestor::JoinToken(token),
            Self::Tpm2(_) => Attestor::Tpm2(device_there()),
            Self::Tpm(_) => Attestor::Tpm(device_there()),
            Self::TpmDevId(files, _) => Attestor::TpmDevId(files, device_there()),
            Self::X509Pop(source) => Attestor::X509Pop(source.on(|_| device_there())),
            Self::SshPop(files) => Attestor::SshPop(files),
            Self::HttpChallenge(name) => Attestor::HttpChallenge(name),
            Self::Together(parts) => Attestor::Together(parts.into_iter().map(|part| part.with(device)).collect()),
        }
    }
}

impl<Chip> NodeAttestor<Chip> {
    /// What the configuration and metrics call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::JoinToken(_) => join_token::TYPE,
            Self::Tpm2(_) => tpm2::TYPE,
            Self::Tpm(_) => tpm::TYPE,
            Self::TpmDevId(..) => tpm_devid::TYPE,
            Self::X509Pop(_) => x509pop::TYPE,
            Self::SshPop(_) => sshpop::TYPE,
            Self::HttpChallenge(_) => http_challenge::TYPE,
            Self::Together(_) => "together_with",
        }
    }

    /// The TPM, if it attests.
    pub fn chip(&self) -> Option<&Chip> {
        match self {
            Self::Tpm2(chip) | Self::Tpm(chip) | Self::TpmDevId(_, chip) => Some(chip),
            Self::X509Pop(source) => source.chip(),
            Self::Together(parts) => parts.iter().find_map(Self::chip),
            Self::JoinToken(_) | Self::SshPop(_) | Self::HttpChallenge(_) => None,
        }
    }

    /// Whether it proves what was started on the device, and has something new to prove after each boot.
    pub fn proves_boot(&self) -> bool {
        match self {
            Self::Tpm2(_) => true,
            Self::Together(parts) => parts.iter().any(Self::proves_boot),
            Self::JoinToken(_)
            | Self::Tpm(_)
            | Self::TpmDevId(..)
            | Self::X509Pop(_)
            | Self::SshPop(_)
            | Self::HttpChallenge(_) => false,
        }
    }

    /// Whether its server asks it at a port that the configuration names: one at a time can listen there.
    pub fn is_asked_at_a_port(&self) -> bool {
        self.is_asked_where(HostName::has_port)
    }

    /// Whether it listens on a port that is root's.
    pub fn listens_where_root_does(&self) -> bool {
        self.is_asked_where(HostName::has_port_of_root)
    }

    fn is_asked_where(&self, is_such: fn(&HostName) -> bool) -> bool {
        match self {
            Self::HttpChallenge(name) => is_such(name),
            Self::Together(parts) => parts.iter().any(|part| part.is_asked_where(is_such)),
            Self::JoinToken(_)
            | Self::Tpm2(_)
            | Self::Tpm(_)
            | Self::TpmDevId(..)
            | Self::X509Pop(_)
            | Self::SshPop(_) => false,
        }
    }

    /// What a key is worth that the disk does not take. Whoever can attest again needs it until the next start; a token is spent
    /// by one attestation.
    fn keep(&self) -> Keep {
        match self {
            //= FLT-A26 agent faults: "an agent that can attest again goes on with a key in memory"
            Self::Tpm2(_) | Self::Tpm(_) | Self::TpmDevId(..) | Self::X509Pop(_) | Self::SshPop(_) => Keep::IfPossible,
            // A name attests once, where the server says so.
            Self::JoinToken(_) | Self::HttpChallenge(_) => Keep::Surely,
            // A token among them is of use once, and not needed again.
            Self::Together(parts) => parts.first().map_or(Keep::Surely, Self::keep),
        }
    }
}

impl Attestor {
    async fn begin(&self, keys: &mut KeyStore, trust_domain: &TrustDomain) -> Result<Proof, AttestationError> {
        let Self::Together(parts) = self else { return self.begin_one(keys, trust_domain).await };
        let mut proofs = Vec::new();
        for part in parts {
            proofs.push(match part {
                // Once the agent is there, the server asks for the others alone.
                Self::JoinToken(token) => Proof::JoinToken(token.clone().unwrap_or_else(|| JoinToken::new(""))),
                part => part.begin_one(keys, trust_domain).await?,
            });
        }
        Ok(Proof::Together(proofs))
    }

    async fn begin_one(&self, keys: &mut KeyStore, trust_domain: &TrustDomain) -> Result<Proof, AttestationError> {
        Ok(match self {
            Self::Together(_) => return Err(AttestationError::Protocol("several ways within several")),
            Self::JoinToken(token) => Proof::JoinToken(token.clone().ok_or(AttestationError::NoToken)?),
            Self::Tpm2(device) => Proof::Tpm2(Box::new(device.prover(keys, trust_domain).await?)),
            Self::Tpm(device) => Proof::Tpm(Box::new(tpm::Prover::on(device).await?)),
            Self::TpmDevId(files, device) => {
                let device = tpm_devid::Device { tpm: device.tpm.clone(), directory: device.directory.clone() };
                Proof::TpmDevId(Box::new(files.prover(device).await?))
            }
            Self::X509Pop(source) => Proof::X509Pop(Box::new(source.prover().await?)),
            Self::SshPop(files) => Proof::SshPop(Box::new(files.prover().await?)),
            Self::HttpChallenge(name) => Proof::HttpChallenge(Box::new(name.prover().await?)),
        })
    }
}

/// One attestation of this device.
enum Proof {
    JoinToken(JoinToken),
    Tpm2(Box<tpm2::Prover>),
    Tpm(Box<tpm::Prover>),
    TpmDevId(Box<tpm_devid::Prover>),
    X509Pop(Box<x509pop::Prover>),
    SshPop(Box<sshpop::Prover>),
    HttpChallenge(Box<http_challenge::Prover>),
    Together(Vec<Proof>),
}

impl Proof {
    /// The first message.
    fn data(&self) -> AttestationData {
        let (kind, payload) = self.first_message();
        AttestationData { r#type: kind, payload: payload.into() }
    }

    /// With its attestation type.
    fn first_message(&self) -> (String, Vec<u8>) {
        match self {
            Self::JoinToken(token) => (join_token::TYPE.to_owned(), token.expose().as_bytes().to_vec()),
            Self::Tpm2(prover) => (tpm2::TYPE.to_owned(), prover.evidence()),
            Self::Tpm(prover) => (tpm::TYPE.to_owned(), prover.evidence()),
            Self::TpmDevId(prover) => (tpm_devid::TYPE.to_owned(), prover.evidence()),
            Self::X509Pop(prover) => (x509pop::TYPE.to_owned(), prover.evidence()),
            Self::SshPop(prover) => (sshpop::TYPE.to_owned(), prover.evidence()),
            Self::HttpChallenge(prover) => (http_challenge::TYPE.to_owned(), prover.evidence()),
            Self::Together(parts) => {
                let (kinds, messages): (Vec<String>, Vec<_>) = parts.iter().map(Self::first_message).unzip();
                (type_of(kinds.iter().map(String::as_str)), join(&messages))
            }
        }
    }

    /// The answer to a challenge, for the key that the certificate is asked for.
    async fn respond(&self, challenge: &[u8], key: &AgentKey) -> Result<Vec<u8>, AttestationError> {
        let Self::Together(parts) = self else { return self.respond_one(challenge, key).await };
        let mut answers = Vec::new();
        for (part, challenge) in parts.iter().zip(split(challenge, parts.len())?) {
            answers.push(if challenge.is_empty() { Vec::new() } else { part.respond_one(challenge, key).await? });
        }
        Ok(join(&answers))
    }

    /// Whether all that `challenge` asks for is a part of the list of measured files.
    fn shows_files_for(&self, challenge: &[u8]) -> bool {
        match self {
            Self::Tpm2(_) => ImaRequest::from_json(challenge).is_ok(),
            Self::Together(parts) => split(challenge, parts.len()).is_ok_and(|challenges| {
                parts.iter().zip(challenges).all(|(part, one)| one.is_empty() || part.shows_files_for(one))
            }),
            _ => false,
        }
    }

    async fn respond_one(&self, challenge: &[u8], key: &AgentKey) -> Result<Vec<u8>, AttestationError> {
        match self {
            Self::Together(_) => Err(AttestationError::Protocol("several ways within several")),
            Self::JoinToken(_) => Err(AttestationError::Protocol("a challenge to a join token")),
            Self::Tpm2(prover) => Ok(prover.respond(challenge, key).await?),
            Self::Tpm(prover) => Ok(prover.respond(challenge).await?),
            Self::TpmDevId(prover) => Ok(prover.respond(challenge).await?),
            Self::X509Pop(prover) => Ok(prover.respond(challenge).await?),
            Self::SshPop(prover) => Ok(prover.respond(challenge)?),
            Self::HttpChallenge(prover) => Ok(prover.respond(challenge).await?),
        }
    }

    /// Whether the server is an older one, and refused what it does not know: from now on that is left out.
    fn offers_less_after(&mut self, error: &AttestationError) -> bool {
        match (self, error) {
            (Self::Tpm2(prover), AttestationError::Server(status)) => prover.offers_less_after(status.message()),
            (Self::Together(parts), error) => parts.iter_mut().any(|part| part.offers_less_after(error)),
            _ => false,
        }
    }

    /// What is to be noted once the conversation is over.
    async fn settle(&self, outcome: Result<(), &AttestationError>, keys: &mut KeyStore) {
        let Self::Together(parts) = self else { return self.settle_one(outcome, keys).await };
        for part in parts {
            part.settle_one(outcome, keys).await;
        }
    }

    async fn settle_one(&self, outcome: Result<(), &AttestationError>, keys: &mut KeyStore) {
        match (self, outcome) {
            (Self::Tpm2(prover), Ok(())) => prover.remember().await,
            (Self::Tpm2(_), Err(AttestationError::Tpm2(failure))) if failure.is_foreign_key() => {
                keys.forget_attestation_key();
            }
            (Self::Tpm(prover), Ok(())) => prover.remember().await,
            (Self::Tpm(prover), Err(AttestationError::Tpm(failure))) => prover.settle(failure).await,
            (Self::TpmDevId(prover), Err(AttestationError::TpmDevId(failure))) => prover.settle(failure).await,
            _ => {}
        }
    }
}

const KIND: &str = "NodeAttestor";

#[cfg(test)]
mod tests {
    use super::*;

    //= FLT-A26
    #[test]
    fn the_key_of_whoever_can_attest_again_need_not_be_kept() {
        let files =
            || CertificateSource { key: KeySource::File("k".into()), certificate: "c".into(), intermediates: None };
        let needed = |attestor: NodeAttestor<()>| attestor.keep();
        assert_eq!(needed(NodeAttestor::JoinToken(Some(JoinToken::new("token")))), Keep::Surely);
        assert_eq!(needed(NodeAttestor::JoinToken(None)), Keep::Surely);
        assert_eq!(needed(NodeAttestor::Tpm2(())), Keep::IfPossible);
        assert_eq!(needed(NodeAttestor::Tpm(())), Keep::IfPossible);
        assert_eq!(needed(NodeAttestor::X509Pop(files())), Keep::IfPossible);
    }
}
