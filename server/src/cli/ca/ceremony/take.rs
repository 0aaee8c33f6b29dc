//! `ca ceremony take`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::utc;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::{CommandError, ConfigFile, Output, Reply};
use serde_json::json;

use super::request::authority;
use crate::cli::run::Flags;
use crate::config::ServerConfig;

/// Gives the server the certificate that its root has signed.
#[derive(Debug, Args)]
#[command(
    after_help = "Run it as the server's user or as root. Refused, each by name: a certificate of another key than the one that waits, one that has ended, one that \
        no root of roots_path has signed. A server that runs takes it up within ten seconds, one that stands still at its next start.

Example: ironroot-server ca ceremony take -config /etc/ironroot/server.conf -certificate /media/usb/ca.pem"
)]
pub(in crate::cli) struct Take {
    /// What was carried back, PEM: the CA first, then what is between it and its root
    #[arg(long, value_name = "PATH")]
    certificate: PathBuf,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
    #[command(flatten)]
    file: ConfigFile<Flags>,
}

impl Take {
    pub(super) fn execute(self) -> ExitCode {
        let output = self.output;
        Reply::print(&self.take(), output)
    }

    fn take(self) -> Result<Reply, CommandError> {
        let authority = authority(&self.file.load(ServerConfig::load)?)?;
        let (ca, path) = authority.take(&self.certificate, wall_unix()).map_err(CommandError::run)?;
        let ends = utc(ca.not_after_unix());
        let text = format!("The CA is taken    : {}\nValid until        : {ends}\n", path.display());
        Ok(Reply::new(json!({ "certificate": path, "not_after": ends, "serial": ca.serial_decimal() }), text))
    }
}
