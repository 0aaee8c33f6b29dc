//! Which servers the agent has: SPIRE's keys of the `agent` block name one, each `server "name"` block one more.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ironroot_api::TrustDomain;
use ironroot_shell::settings::Section;

use super::agent_block::read_join_token;
use super::bundle_source;
use super::plugins::MAX_KEY_LABEL_BYTES;
use super::{Bootstrap, JoinToken, KeyManager, NodeAttestor};
use crate::server_number::MAX_SERVERS;

/// Longest name of a server, bytes: it is a directory, and part of a key's label in a token.
const MAX_NAME_BYTES: usize = 16;
/// Where in the data directory the servers with names have their directories.
const DIRECTORY: &str = "servers";
/// The keys of the `agent` block that are a server's.
const SERVER_KEYS: [&str; 10] = [
    "server_address",
    "server_port",
    "trust_bundle_path",
    "trust_bundle_url",
    "trust_bundle_unix_socket",
    "trust_bundle_spiffe_workload_api",
    "trust_bundle_format",
    "insecure_bootstrap",
    "join_token",
    "join_token_file",
];

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Of its block; none for the one that the `agent` block itself names.
    pub name: Option<ServerName>,
    /// Its host name or address.
    pub address: String,
    /// The TCP port that it listens on, 1 to 65535.
    pub port: u16,
    /// How it is known before there is a trust bundle of its own.
    pub bootstrap: Bootstrap,
    /// The token that it gave for the first attestation, if that takes one. The [`NodeAttestor`] has that of the first server.
    pub join_token: Option<JoinToken>,
}

/// A server's name: lower-case letters, digits and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerName(String);

impl FromStr for ServerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_legal = !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.bytes().all(legal);
        let refusal = || format!("not a server's name: at most {MAX_NAME_BYTES} lower-case letters, digits and \"-\"");
        if is_legal { Ok(Self(text.to_owned())) } else { Err(refusal()) }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ServerConfig {
    /// What of it is kept lies here: of the server without a name in the data directory itself, as with SPIRE.
    pub fn directory(&self, data_dir: &Path) -> PathBuf {
        match &self.name {
            None => data_dir.to_owned(),
            Some(name) => data_dir.join(DIRECTORY).join(&name.0),
        }
    }

    /// How labels of the agent's keys for it begin in a token: those of servers with names have the name in them.
    pub fn key_label(&self, label: &str) -> String {
        self.name.as_ref().map_or_else(|| label.to_owned(), |name| format!("{label}.{name}"))
    }

    /// How the device proves itself there.
    pub fn node_attestor(&self, attestor: &NodeAttestor) -> NodeAttestor {
        attestor.clone().with_token(self.join_token.as_ref())
    }
}

/// All of them, in the order of the file, the `agent` block's own first. None if one cannot be read.
pub(super) fn read(agent: &Section<'_>, trust_domain: Option<&TrustDomain>) -> Option<Vec<ServerConfig>> {
    let blocks = agent.named_blocks("server");
    let own = blocks.is_empty() || ["server_address", "server_port"].iter().any(|key| agent.has(key));
    if blocks.len() + usize::from(own) > MAX_SERVERS {
        agent.mistake("server", format!("an agent has at most {MAX_SERVERS} servers"));
    }
    let mut servers = Vec::new();
    if own {
        servers.push(read_one(agent, None, trust_domain));
    } else {
        let stray = SERVER_KEYS.into_iter().filter(|key| agent.has(key));
        stray.for_each(|key| agent.mistake(key, "belongs to one of the servers: write it into its server block"));
    }
    for (name, block) in &blocks {
        let legal = name.parse().map_err(|reason: String| block.own_mistake(reason)).ok();
        let server = read_one(block, legal.clone(), trust_domain);
        block.finish();
        servers.push(server.filter(|_| legal.is_some()));
    }
    let servers: Option<Vec<ServerConfig>> = servers.into_iter().collect();
    servers.filter(|servers| tell_apart(agent, servers))
}

/// Two blocks of one name would keep what they have in one place.
fn tell_apart(agent: &Section<'_>, servers: &[ServerConfig]) -> bool {
    let twice = |(place, server): (usize, &ServerConfig)| {
        let before = &servers[..place];
        let name = server.name.as_ref().filter(|_| before.iter().any(|other| other.name == server.name))?;
        agent.mistake("server", format!("two servers are called {:?}: what is kept of each has its name", name.0));
        Some(())
    };
    servers.iter().enumerate().filter_map(twice).count() == 0
}

fn read_one(
    section: &Section<'_>,
    name: Option<ServerName>,
    trust_domain: Option<&TrustDomain>,
) -> Option<ServerConfig> {
    let address = section.parsed("server_address", host);
    let address = section.required("server_address", address, "give the server's host name or IP address");
    let port = section.required("server_port", section.port("server_port", 1), "give the server's port, usually 8081");
    let bootstrap = bundle_source::read(section, trust_domain);
    let join_token = read_join_token(section);
    Some(ServerConfig { name, address: address?, port: port?, bootstrap: bootstrap?, join_token })
}

fn host(text: &str) -> Result<String, &'static str> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let is_name = bare.len() <= 253 && bare.bytes().all(legal);
    let has_port = bare.contains(':') && bare.parse::<std::net::Ipv6Addr>().is_err();
    match is_name && !has_port {
        true => Ok(bare.to_owned()),
        false => Err("not a host name or IP address (the port goes into server_port)"),
    }
}

/// The loops of several servers attest at the same time.
pub(super) fn refuse_one_port_for_several(root: &Section<'_>, servers: &[ServerConfig], attestor: &NodeAttestor) {
    if servers.len() > 1 && attestor.is_asked_at_a_port() {
        let reason = "several servers cannot ask at one port at the same time: leave port out, or name one server";
        root.block("plugins").mistake("NodeAttestor", reason);
    }
}

/// Labels of the keys of each server fit into a token.
pub(super) fn refuse_long_labels(root: &Section<'_>, servers: &[ServerConfig], keys: &KeyManager) {
    let KeyManager::Token { label, .. } = keys else { return };
    if servers.iter().any(|server| server.key_label(label).len() > MAX_KEY_LABEL_BYTES) {
        let reason =
            format!("key_label and the name of a server together are longer than {} bytes", MAX_KEY_LABEL_BYTES - 1);
        root.block("plugins").mistake("KeyManager", reason);
    }
}
