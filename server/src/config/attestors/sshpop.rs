//! `NodeAttestor "sshpop"`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ironroot_attest::node::sshpop::{AuthoritiesError, HostAuthorities};
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::Section;
use ironroot_text::{FileError, HumanFile};
use thiserror::Error;

use crate::node_attestation::agent_path::AgentPathTemplate;
use crate::node_attestation::{Attestor, SSHPOP_FIELDS, SshPopPolicy};

/// Largest file accepted, bytes: a thousand keys.
const MAX_FILE_BYTES: usize = 2 * 1024 * 1024;
/// Source: SPIRE, `DefaultAgentPathTemplate`.
const DEFAULT_PATH: &str = "/{{ .PluginName }}/{{ .Fingerprint }}";

/// Whose SSH certificates devices attest with, and what they are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshPopConfig {
    /// Authorities that the configuration names itself.
    pub authorities: HostAuthorities,
    /// A file with more of them.
    pub authorities_path: Option<PathBuf>,
    /// What the first name of a certificate must end with, a dot in front.
    pub canonical_domain: Option<String>,
    /// What agents are called.
    pub agent_path: AgentPathTemplate,
}

/// Why a file of authorities cannot be used. Each message names the file.
#[derive(Debug, Error)]
pub enum SshAuthoritiesError {
    /// It cannot be read, or is no text.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is something else in it.
    #[error("{0} holds no usable authorities of hosts")]
    Authorities(String, #[source] AuthoritiesError),
}

impl SshPopConfig {
    pub(super) fn load(&self) -> Result<Attestor, SshAuthoritiesError> {
        let in_file = self.authorities_path.as_deref().map(read_authorities).transpose()?;
        let policy = SshPopPolicy {
            authorities: self.authorities.clone().and(in_file.unwrap_or_default()),
            canonical_domain: self.canonical_domain.clone(),
            agent_path: self.agent_path.clone(),
        };
        Ok(Attestor::SshPop(Arc::new(policy)))
    }
}

fn read_authorities(path: &Path) -> Result<HostAuthorities, SshAuthoritiesError> {
    let file = HumanFile::regular(path, MAX_FILE_BYTES)?;
    HostAuthorities::from_lines(file.text())
        .map_err(|error| SshAuthoritiesError::Authorities(file.name().to_owned(), error))
}

/// What `NodeAttestor "sshpop"` is told.
pub(super) fn read(data: &Section<'_>) -> Option<SshPopConfig> {
    let given = data
        .parsed_list("cert_authorities", |line| HostAuthorities::from_lines(line).map_err(|error| describe(&error)));
    let path = data.path("cert_authorities_path");
    let domain = data.string("canonical_domain").filter(|domain| !domain.is_empty());
    let agent_path = match data.string("agent_path_template").filter(|template| !template.is_empty()) {
        Some(_) => data.parsed("agent_path_template", |text| AgentPathTemplate::parse(text, SSHPOP_FIELDS)),
        None => Some(AgentPathTemplate::parse(DEFAULT_PATH, SSHPOP_FIELDS).expect("it is legal: a test reads it")),
    };
    data.finish();
    let is_named = data.has("cert_authorities") || path.is_some();
    let hint =
        "give the public keys that sign hosts' certificates, as authorized_keys has them, or cert_authorities_path";
    data.required("cert_authorities", is_named.then_some(()), hint)?;
    if let Some(path) = &path {
        data.look("cert_authorities_path", || read_authorities(path).map(drop).map_err(|error| describe(&error)));
    }
    Some(SshPopConfig {
        authorities: given.unwrap_or_default().into_iter().fold(HostAuthorities::default(), HostAuthorities::and),
        authorities_path: path,
        canonical_domain: domain.map(|domain| format!(".{domain}")),
        agent_path: agent_path?,
    })
}

#[cfg(test)]
mod tests {
    use ironroot_shell::settings::Settings;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB ca@example.org";

    fn read_from(data: &str) -> Result<SshPopConfig, String> {
        let text = format!("plugins {{ NodeAttestor \"sshpop\" {{ plugin_data {{\n{data}\n}} }} }}\n");
        let settings = Settings::parse(Path::new("server.conf"), &text).expect("HCL").looking();
        let read_all = |root: &Section<'_>| {
            let plugins = root.block("plugins");
            let plugin = plugins.plugins("NodeAttestor").into_iter().next()?;
            read(&plugin.data)
        };
        settings.check(read_all).map(|checked| checked.value).map_err(|errors| errors.to_string())
    }

    #[test]
    fn keys_are_spires_and_each_mistake_is_told() {
        let directory = tempfile::tempdir().expect("directory");
        let [good, bad] = ["good", "bad"].map(|name| directory.path().join(name));
        std::fs::write(&good, format!("# hosts\n{KEY}\n")).expect("written");
        std::fs::write(&bad, "ssh-ed25519 none\n").expect("written");
        let given = format!("cert_authorities = [\"{KEY}\"]");
        let config = read_from(&format!(
            "{given} canonical_domain = \"example.org\" cert_authorities_path = \"{}\"",
            good.display()
        ));
        let config = config.expect("legal");
        assert_eq!(config.canonical_domain.as_deref(), Some(".example.org"));
        assert!(matches!(config.load(), Ok(Attestor::SshPop(_))));
        assert!(
            read_from(&format!("{given} agent_path_template = \"/static/{{{{ index .ValidPrincipals 0 }}}}\"")).is_ok()
        );
        for (data, expected) in [
            (String::new(), "cert_authorities: missing: give the public keys"),
            ("cert_authorities = [\"ssh-dss AAAAB3NzaC1kc3M=\"]".to_owned(), "keys of type \"ssh-dss\" are not taken"),
            (
                format!("cert_authorities_path = \"{}\"", bad.display()),
                "bad holds no usable authorities of hosts: line 1",
            ),
            (format!("{given} agent_path_template = \"/{{{{ .Nonce }}}}\""), "there is no field .Nonce"),
            (format!("{given} cert_authority = \"x\""), "unknown key"),
        ] {
            let refused = read_from(&data).expect_err(&data);
            assert!(refused.contains(expected), "{data}: {refused}");
        }
    }
}
