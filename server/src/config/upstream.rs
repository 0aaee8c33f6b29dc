//! `UpstreamAuthority`: who certifies the CAs of this server, if not itself or a root of its own.

use ironroot_api::TrustDomain;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::Section;

use super::PROGRAM;
use super::server_block::ServerBlock;
use super::upstream_token::{self, UpstreamTokenConfig};
use crate::ca::{DiskAuthority, Exchange, SpireServer};

/// Who certifies the CAs of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamConfig {
    /// Another PKI's CA, in files.
    Disk(DiskAuthority),
    /// A server above this one, SPIRE's or ours.
    Spire(SpireServer),
    /// A root on a token of its own.
    Token(Box<UpstreamTokenConfig>),
}

/// Reads the plugin, at most one; none in it if there is none.
impl UpstreamConfig {
    /// Where requests wait for a root that is away, if there is such a root.
    pub fn ceremony(&self) -> Option<Exchange> {
        match self {
            Self::Token(root) => Some(Exchange::at(root.ceremony_dir.clone())),
            Self::Disk(_) | Self::Spire(_) => None,
        }
    }
}

pub(super) fn read(plugins: &Section<'_>, server: Option<&ServerBlock>) -> Option<Option<UpstreamConfig>> {
    let trust_domain = server.map(|server| &server.trust_domain);
    let Some(plugin) = plugins.only_plugin("UpstreamAuthority") else { return Some(None) };
    match plugin.name.as_str() {
        "disk" => read_disk(&plugin.data, trust_domain).map(UpstreamConfig::Disk).map(Some),
        "spire" => read_spire(&plugin.data, server).map(UpstreamConfig::Spire).map(Some),
        "pkcs11" => upstream_token::read(&plugin.data, server).map(Box::new).map(UpstreamConfig::Token).map(Some),
        _ => {
            let reason = format!("not supported by {PROGRAM} yet: use \"disk\", \"pkcs11\" or \"spire\"");
            plugins.plugin_mistake("UpstreamAuthority", &plugin, reason);
            None
        }
    }
}

fn read_disk(data: &Section<'_>, trust_domain: Option<&TrustDomain>) -> Option<DiskAuthority> {
    let (certificate, key) = (data.path("cert_file_path"), data.path("key_file_path"));
    let hint = "give the PEM file of the CA's certificate, and of what is between it and its root";
    let certificate_path = data.required("cert_file_path", certificate, hint);
    let key_path = data.required("key_file_path", key, "give the PEM file of the CA's key");
    let bundle_path = data.path("bundle_file_path");
    data.finish();
    let files = DiskAuthority { certificate_path: certificate_path?, key_path: key_path?, bundle_path };
    if let Some(trust_domain) = trust_domain {
        data.look("cert_file_path", || files.look(trust_domain, wall_unix()).map_err(|error| describe(&error)));
    }
    Some(files)
}

/// Its own `require_pq_kem` holds for this link alone, the server's for all.
fn read_spire(data: &Section<'_>, server: Option<&ServerBlock>) -> Option<SpireServer> {
    let hint = "give the name or address of the server above";
    let host = data.required("server_address", data.string("server_address"), hint);
    let port = data.required("server_port", data.port("server_port", 1), "give its TCP port");
    let hint = "give the socket of the agent there that serves this server, such as /tmp/spire-agent/public/api.sock";
    let socket = data.required("workload_api_socket", data.socket_path("workload_api_socket"), hint);
    let experimental = data.block("experimental");
    experimental.not_supported(PROGRAM, &["workload_api_named_pipe_name"]);
    let of_all = server.map(|server| server.key_exchanges).unwrap_or_default();
    let key_exchanges = experimental.boolean("require_pq_kem").filter(|required| *required).map_or(of_all, Into::into);
    experimental.finish();
    data.finish();
    Some(SpireServer { host: host?, port: port?, workload_api_socket: socket?, key_exchanges })
}
