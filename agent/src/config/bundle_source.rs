//! How a server is known before there is a bundle of its own, and after the one that there was has failed.

use std::path::PathBuf;
use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::Section;
use ironroot_shell::web::{EndpointUrl, OtherUrlError};

use super::{Bootstrap, NodeAttestor, Rebootstrap, RebootstrapMode, ServerConfig};
use crate::bundle_source::{BundleSource, SocketUrl, TrustBundleFormat, read_bundle};

/// How long a server is not believed before another bundle is sought, unless the file says otherwise. Source: SPIRE.
const DEFAULT_DELAY: Duration = Duration::from_secs(600);
/// Keys of which one says how the server is known. Source: SPIRE.
const WAYS: [&str; 4] =
    ["trust_bundle_path", "trust_bundle_url", "trust_bundle_spiffe_workload_api", "insecure_bootstrap"];

/// Reads the keys of a server: one of [`WAYS`], and what belongs to it.
pub(super) fn read(section: &Section<'_>, trust_domain: Option<&TrustDomain>) -> Option<Bootstrap> {
    let format = section.parsed("trust_bundle_format", |text| match text {
        "pem" => Ok(TrustBundleFormat::Pem),
        "spiffe" => Ok(TrustBundleFormat::Spiffe),
        _ => Err("not a bundle format: use pem or spiffe"),
    });
    let format = format.unwrap_or_default();
    let is_insecure = section.boolean("insecure_bootstrap").unwrap_or(false);
    let given = |key: &&str| if *key == "insecure_bootstrap" { is_insecure } else { section.has(key) };
    let ways: Vec<&str> = WAYS.into_iter().filter(given).collect();
    let file = section.path("trust_bundle_path").map(|path| BundleSource::File { path, format });
    let web = read_url(section, format);
    let workload_api = section
        .parsed("trust_bundle_spiffe_workload_api", workload_api_socket)
        .map(|socket| BundleSource::WorkloadApi { socket });
    match ways[..] {
        [] => {
            let hint = "the agent could not tell the server from an impostor: give the file that \
                        \"ironroot-server bundle show\" printed, trust_bundle_url, trust_bundle_spiffe_workload_api, \
                        or insecure_bootstrap = true for a trial";
            section.required("trust_bundle_path", None, hint)
        }
        ["insecure_bootstrap"] => {
            section.warn(
                "insecure_bootstrap",
                "the first server that answers will be believed: give trust_bundle_path in production",
            );
            Some(Bootstrap::Insecure)
        }
        [_] => {
            look_at_the_file(section, file.as_ref(), trust_domain);
            file.or(web).or(workload_api).map(Bootstrap::TrustBundle)
        }
        [first, .., last] => {
            section.mistake(last, format!("give either {first} or {last}, not both"));
            None
        }
    }
}

/// The file is there, and is what it is said to be.
fn look_at_the_file(section: &Section<'_>, source: Option<&BundleSource>, trust_domain: Option<&TrustDomain>) {
    let (Some(BundleSource::File { path, format }), Some(trust_domain)) = (source, trust_domain) else { return };
    section.look("trust_bundle_path", || {
        let read = read_bundle(path, *format, trust_domain);
        read.map(drop).map_err(|error| format!("{}: {}", path.display(), describe(&error)))
    });
}

fn read_url(section: &Section<'_>, format: TrustBundleFormat) -> Option<BundleSource> {
    let Some(socket) = section.socket_path("trust_bundle_unix_socket") else {
        let url = section.parsed("trust_bundle_url", |text| EndpointUrl::parse(text).map_err(OtherUrlError))?;
        return Some(BundleSource::Web { url, format });
    };
    if !section.has("trust_bundle_url") {
        section
            .mistake("trust_bundle_unix_socket", "asks nothing without trust_bundle_url: give that too, with http://");
    }
    let url = section.parsed("trust_bundle_url", SocketUrl::parse)?;
    Some(BundleSource::Socket { url, socket, format })
}

/// `unix:///path` or `unix:/path`. Source: SPIFFE Workload Endpoint §4; a Workload API over TCP tells everybody there everything.
fn workload_api_socket(text: &str) -> Result<PathBuf, &'static str> {
    let path =
        text.strip_prefix("unix:").ok_or("not the address of a Workload API: write unix:///path/of/the/socket")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.starts_with('/') { Ok(path.into()) } else { Err("the socket's path must be absolute: write unix:///path") }
}

/// Reads `rebootstrap_mode` and `rebootstrap_delay`.
pub(super) fn read_rebootstrap(agent: &Section<'_>) -> Rebootstrap {
    let mode = agent.parsed("rebootstrap_mode", |text| match text {
        "never" => Ok(RebootstrapMode::Never),
        "auto" => Ok(RebootstrapMode::Auto),
        "always" => Ok(RebootstrapMode::Always),
        _ => Err("not a mode: use never, auto or always"),
    });
    let delay = agent.duration("rebootstrap_delay").unwrap_or(DEFAULT_DELAY);
    Rebootstrap { mode: mode.unwrap_or_default(), delay }
}

/// A server that is believed without proof is believed again; and who has one token attests once.
pub(super) fn refuse_to_rebootstrap(
    agent: &Section<'_>,
    rebootstrap: Rebootstrap,
    servers: &[ServerConfig],
    attestor: &NodeAttestor,
) {
    if rebootstrap.mode != RebootstrapMode::Never && servers.iter().any(|to| to.bootstrap == Bootstrap::Insecure) {
        let reason = "insecure_bootstrap cannot be used with it: give trust_bundle_path, trust_bundle_url or \
                      trust_bundle_spiffe_workload_api";
        agent.mistake("rebootstrap_mode", reason);
    }
    if rebootstrap.mode == RebootstrapMode::Always && matches!(attestor, NodeAttestor::JoinToken(_)) {
        let reason = "an agent with a join token may attest once: use auto, or another NodeAttestor";
        agent.mistake("rebootstrap_mode", reason);
    }
}
