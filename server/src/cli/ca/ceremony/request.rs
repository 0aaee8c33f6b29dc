//! `ca ceremony request`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ironroot_shell::command_line::{CommandError, ConfigFile, Output, Reply};
use serde_json::json;

use super::facts::{hash_of_file, sha256};
use super::outputs::put;
use crate::ca::{CeremonyRefusal, TokenAuthority, WaitingRequest};
use crate::cli::run::Flags;
use crate::config::{ServerConfig, UpstreamConfig};

/// Shows the request that waits for the root, and copies it to where it can be carried to the ceremony.
#[derive(Debug, Args)]
#[command(
    after_help = "Run it as the server's user or as root. Read the SHA-256 out at the ceremony: it is in the transcript there. No server needs to run: the \
        request is made by the server when its next CA is due (at half of ca_ttl), or at once by localauthority x509 prepare.

Example: ironroot-server ca ceremony request -config /etc/ironroot/server.conf -out /media/usb/request.pem"
)]
pub(in crate::cli) struct ShowRequest {
    /// File to copy it to, which is not there yet
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
    #[command(flatten)]
    file: ConfigFile<Flags>,
}

impl ShowRequest {
    pub(super) fn execute(self) -> ExitCode {
        let output = self.output;
        Reply::print(&self.show(), output)
    }

    fn show(self) -> Result<Reply, CommandError> {
        let authority = authority(&self.file.load(ServerConfig::load)?)?;
        let waiting = waiting(&authority)?;
        let copied = match &self.out {
            Some(path) => {
                let bytes = std::fs::read(waiting.path()).map_err(|source| CommandError::File {
                    doing: "read",
                    path: waiting.path().to_owned(),
                    source,
                })?;
                put(path, &bytes)?;
                path.clone()
            }
            None => waiting.path().to_owned(),
        };
        let (file, key) = (hash_of_file(&copied), sha256(waiting.spki_der()));
        let text = format!(
            "Request            : {}\nFile SHA-256       : {file}\nPublic key SHA-256 : {key}\n",
            copied.display()
        );
        Ok(Reply::new(json!({ "request": copied, "file_sha256": file, "public_key_sha256": key }), text))
    }
}

/// The root that the configuration has, if it is one on a token of its own.
pub(super) fn authority(config: &ServerConfig) -> Result<TokenAuthority, CommandError> {
    match &config.upstream {
        Some(UpstreamConfig::Token(root)) => Ok(root.authority(&config.trust_domain)),
        _ => {
            let none = "the configuration has no root on a token of its own: add UpstreamAuthority \"pkcs11\" { plugin_data { roots_path } }";
            Err(CommandError::Usage(none.to_owned()))
        }
    }
}

/// What waits for it.
pub(super) fn waiting(authority: &TokenAuthority) -> Result<WaitingRequest, CommandError> {
    let waiting = authority.exchange.waiting().map_err(CommandError::run)?;
    let place = authority.exchange.request_path().display().to_string();
    waiting.ok_or_else(|| CommandError::run(CeremonyRefusal::NothingWaits(place)))
}
