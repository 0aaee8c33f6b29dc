//! `NodeAttestor "x509pop"`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ironroot_attest::node::x509pop::{Authorities, AuthoritiesError, SizeLimits};
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::Section;
use ironroot_text::{FileError, HumanFile};
use thiserror::Error;
use tracing::warn;

use super::told_of_ended;
use crate::node_attestation::agent_path::AgentPathTemplate;
use crate::node_attestation::{Attestor, Issuers, X509POP_FIELDS, X509PopPolicy};

/// Largest bundle accepted, bytes: some thousand certificates.
const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// Whose certificates devices attest with, and what is asked of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509PopConfig {
    /// SPIRE's `mode`.
    pub mode: X509PopMode,
    /// Sizes that are looked at.
    pub limits: SizeLimits,
    /// What agents are called.
    pub agent_path: AgentPathTemplate,
    /// Whether a certificate must name the address that its device comes from.
    pub verify_client_ip: bool,
}

/// Whose certificates they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum X509PopMode {
    /// `external_pki`: those of the authorities in these PEM files, at least one.
    ExternalPki(Vec<PathBuf>),
    /// `spiffe`: X509-SVIDs of this trust domain whose path begins so; begins and ends with a slash.
    Spiffe(String),
}

/// Why such a bundle cannot be used. Each message names the file.
#[derive(Debug, Error)]
pub enum CaBundleError {
    /// It cannot be read, or is no text.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is something else in it than certificates of authorities.
    #[error("{0} holds no usable authorities")]
    Authorities(String, #[source] AuthoritiesError),
}

impl X509PopConfig {
    pub(super) fn load(&self, now_unix: i64) -> Result<Attestor, CaBundleError> {
        let issuers = match &self.mode {
            X509PopMode::ExternalPki(paths) => Issuers::Named(load_bundles(paths, now_unix)?),
            X509PopMode::Spiffe(prefix) => Issuers::TrustDomain { prefix: prefix.clone() },
        };
        let (limits, agent_path) = (self.limits, self.agent_path.clone());
        let policy = X509PopPolicy { issuers, limits, agent_path, verify_client_ip: self.verify_client_ip };
        Ok(Attestor::X509Pop(Arc::new(policy)))
    }
}

fn load_bundles(paths: &[PathBuf], now_unix: i64) -> Result<Authorities, CaBundleError> {
    let mut authorities = Authorities::default();
    for path in paths {
        let bundle = read_bundle(path)?;
        told_of_ended(path, &bundle.ended(now_unix)).inspect(|told| warn!("{told}"));
        authorities = authorities.and(bundle);
    }
    Ok(authorities)
}

pub(super) fn read_bundle(path: &Path) -> Result<Authorities, CaBundleError> {
    let file = HumanFile::regular(path, MAX_FILE_BYTES)?;
    Authorities::from_pem(file.text()).map_err(|error| CaBundleError::Authorities(file.name().to_owned(), error))
}

/// What `NodeAttestor "x509pop"` is told.
pub(super) fn read(data: &Section<'_>) -> Option<X509PopConfig> {
    let is_spiffe = data.parsed("mode", |mode| match mode {
        "external_pki" => Ok(false),
        "spiffe" => Ok(true),
        _ => Err("use external_pki, with ca_bundle_path, or spiffe, for SVIDs of this trust domain"),
    });
    let is_spiffe = is_spiffe.unwrap_or(false);
    let mode = if is_spiffe { read_spiffe(data) } else { read_external(data) };
    let limits = read_limits(data);
    let agent_path = read_agent_path(data, if is_spiffe { DEFAULT_PATH_OF_SVID } else { DEFAULT_PATH });
    let verify_client_ip = data.boolean("verify_client_ip").unwrap_or(false);
    data.finish();
    Some(X509PopConfig { mode: mode?, limits, agent_path: agent_path?, verify_client_ip })
}

/// Source: SPIRE, `DefaultAgentPathTemplateCN` and `DefaultAgentPathTemplateSVID`.
const DEFAULT_PATH: &str = "/{{ .PluginName }}/{{ .Fingerprint }}";
const DEFAULT_PATH_OF_SVID: &str = "/{{ .PluginName }}/{{ .SVIDPathTrimmed }}";
/// Paths of SVIDs that are exchanged. Source: SPIRE.
const DEFAULT_PREFIX: &str = "/spire-exchange/";

fn read_agent_path(data: &Section<'_>, default: &str) -> Option<AgentPathTemplate> {
    let parse = |text: &str| AgentPathTemplate::parse(text, X509POP_FIELDS);
    match data.string("agent_path_template") {
        Some(_) => data.parsed("agent_path_template", parse),
        None => Some(parse(default).expect("it is legal: a test reads it")),
    }
}

fn read_limits(data: &Section<'_>) -> SizeLimits {
    let limit = |key, least: i64, most: usize| {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        data.integer(key, least..=most).and_then(|value| usize::try_from(value).ok())
    };
    let default = SizeLimits::default();
    SizeLimits {
        intermediates: limit("max_intermediates", 1, SizeLimits::MOST_INTERMEDIATES).unwrap_or(default.intermediates),
        rsa_bits: limit("max_rsa_key_size", 2048, SizeLimits::MOST_RSA_BITS).unwrap_or(default.rsa_bits),
    }
}

/// The key is `svid_prefix` in SPIRE's documentation and `spiffe_prefix` in its source, which passes the other one over.
fn read_spiffe(data: &Section<'_>) -> Option<X509PopMode> {
    for key in ["ca_bundle_path", "ca_bundle_paths"] {
        data.refuse(
            key,
            "mode \"spiffe\" believes this trust domain's own authorities: remove it, or use external_pki",
        );
    }
    if data.has("spiffe_prefix") && data.has("svid_prefix") {
        data.mistake("svid_prefix", "give either spiffe_prefix or svid_prefix, not both");
    }
    let key = if data.has("svid_prefix") { "svid_prefix" } else { "spiffe_prefix" };
    // An empty one means every path, so it is not the default as an empty text is elsewhere.
    let given = data.parsed(key, |prefix| match prefix.starts_with('/') {
        true => Ok(format!("{}/", prefix.trim_end_matches('/'))),
        false => Err("begin it with \"/\": it is the beginning of a SPIFFE ID's path"),
    });
    let default = if data.has(key) { "/" } else { DEFAULT_PREFIX };
    Some(X509PopMode::Spiffe(given.unwrap_or_else(|| default.to_owned())))
}

fn read_external(data: &Section<'_>) -> Option<X509PopMode> {
    for key in ["spiffe_prefix", "svid_prefix"] {
        data.refuse(key, "has a meaning in mode \"spiffe\" alone: remove it, or set mode");
    }
    let (one, several) = (data.path("ca_bundle_path"), data.strings("ca_bundle_paths").unwrap_or_default());
    if one.is_some() && !several.is_empty() {
        data.mistake("ca_bundle_paths", "give either ca_bundle_path or ca_bundle_paths, not both");
    }
    let key = if data.has("ca_bundle_paths") { "ca_bundle_paths" } else { "ca_bundle_path" };
    let paths: Vec<PathBuf> = one.into_iter().chain(several.into_iter().map(PathBuf::from)).collect();
    for path in &paths {
        data.look(key, || {
            let bundle = read_bundle(path).map_err(|error| describe(&error))?;
            told_of_ended(path, &bundle.ended(wall_unix())).inspect(|told| data.warn(key, told.as_str()));
            Ok(())
        });
    }
    let hint = "give the PEM file of the authorities that issue the devices' certificates";
    data.required(key, Some(paths).filter(|paths| !paths.is_empty()), hint).map(X509PopMode::ExternalPki)
}
