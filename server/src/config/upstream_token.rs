//! `UpstreamAuthority "pkcs11"`: a root on a token of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_hsm::settings::{TokenAccess, read_access};
use ironroot_hsm::{KeyName, TokenUri};
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::{Section, format_duration};

use super::LoginMode;
use super::server_block::ServerBlock;
use crate::ca::{Exchange, RootToken, TokenAuthority};

/// Where requests wait, below `data_dir`, unless the file says otherwise.
const CEREMONY: &str = "ceremony";
/// A CA that lives shorter than this needs its root more often than somebody goes to a safe.
const SHORTEST_QUIET_CA: Duration = Duration::from_secs(30 * 24 * 3600);
/// Keys that say that the root's token is plugged in here at times.
const OF_THE_TOKEN: [&str; 9] = [
    "key_label",
    "login",
    "module_path",
    "pin_credential",
    "pin_env",
    "pin_file",
    "token_label",
    "token_serial",
    "token_uri",
];

/// A root on a token of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTokenConfig {
    /// PEM: its certificate, and the next root's.
    pub roots_path: PathBuf,
    /// Where requests wait and certificates for them are put.
    pub ceremony_dir: PathBuf,
    /// Its token, if that is ever plugged in here.
    pub token: Option<RootTokenConfig>,
}

/// The root's token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the keys of the file by their names")]
pub struct RootTokenConfig {
    pub module_path: PathBuf,
    pub token: TokenUri,
    pub login: LoginMode,
    pub key: KeyName,
}

impl UpstreamTokenConfig {
    /// As the CA uses it.
    pub fn authority(&self, trust_domain: &TrustDomain) -> TokenAuthority {
        TokenAuthority {
            trust_domain: trust_domain.clone(),
            roots_path: self.roots_path.clone(),
            exchange: Exchange::at(self.ceremony_dir.clone()),
            token: self.token.as_ref().map(RootTokenConfig::root_token),
        }
    }
}

impl RootTokenConfig {
    fn root_token(&self) -> RootToken {
        let login = self.login.clone();
        RootToken {
            module_path: self.module_path.clone(),
            token: self.token.clone(),
            login: Arc::new(move || login.read()),
            key: self.key.clone(),
        }
    }
}

/// Reads the block. The token's own keys are there all, or none of them.
pub(super) fn read(data: &Section<'_>, server: Option<&ServerBlock>) -> Option<UpstreamTokenConfig> {
    let hint = "give the PEM file with the root's certificate, as \"ironroot-server ca ceremony root\" has written it";
    let roots_path = data.required("roots_path", data.path("roots_path"), hint);
    let ceremony_dir = data.path("ceremony_dir");
    let ceremony_dir = ceremony_dir.or_else(|| server.map(|server| server.data_dir.join(CEREMONY)));
    let has_token = OF_THE_TOKEN.iter().any(|key| data.has(key));
    let token = if has_token { read_token(data).map(Some) } else { Some(None) };
    if let Some(ca) = server.map(|server| server.lifetimes.ca).filter(|ca| *ca < SHORTEST_QUIET_CA) {
        let half = format_duration(ca / 2);
        data.warn(
            "roots_path",
            format!("with this ca_ttl the root has to be at hand every {half}: set ca_ttl to a year or so (8760h)"),
        );
    }
    data.finish();
    let config = UpstreamTokenConfig { roots_path: roots_path?, ceremony_dir: ceremony_dir?, token: token? };
    if let Some(server) = server {
        let look = || config.authority(&server.trust_domain).look().map_err(|error| describe(&error));
        data.look("roots_path", look);
    }
    Some(config)
}

fn read_token(data: &Section<'_>) -> Option<RootTokenConfig> {
    let labelled = |text: &str| KeyName::labelled(text).ok_or("a label is not empty");
    let hint = "give the label of the root's key, as the ceremony has it";
    let key = data.required("key_label", data.parsed("key_label", labelled), hint);
    let TokenAccess { module_path, token, login } = read_access(data)?;
    Some(RootTokenConfig { module_path, token, login, key: key? })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn requests_wait_below_the_data_directory_unless_the_file_says_otherwise() {
        let config = UpstreamTokenConfig {
            roots_path: PathBuf::from("/etc/ironroot/roots.pem"),
            ceremony_dir: Path::new("/var/lib/ironroot-server").join(CEREMONY),
            token: None,
        };
        let authority = config.authority(&TrustDomain::new("example.org").unwrap());
        assert_eq!(authority.exchange.request_path(), Path::new("/var/lib/ironroot-server/ceremony/ca-request.pem"));
        assert!(authority.token.is_none());
    }
}
