//! `backup`: everything that a server cannot lose, in one file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::utc;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::{CommandError, ConfigFile, Output, Reply, keep_files_private};
use ironroot_text::hex::hex;
use serde_json::json;

use super::run::Flags;
use crate::backup::{Manifest, OperatorPublicKey, PartName, Source, make};
use crate::config::ServerConfig;

/// Writes everything that the server cannot lose into one file; the server may be running.
#[derive(Debug, Args)]
#[command(
    after_help = "The file holds the database as it is at one moment, with the CA's journal; a sealed one holds the key file of KeyManager \"disk\" too. \
        It holds no key of a token (that has a backup of its own), no configuration and no PIN. It appears under its name when it is whole. \
        Run it as the user that the server runs as.
-sealTo: make a key pair once, and keep the private half away from the server:
  openssl genpkey -algorithm X25519 -out operator.key; openssl pkey -in operator.key -pubout -out operator.pub

Example: ironroot-server backup /mnt/backups/2026-11-26.backup -sealTo /etc/ironroot/operator.pub"
)]
pub(super) struct Backup {
    /// The file to write; it may not be there yet
    #[arg(value_name = "FILE")]
    into: PathBuf,
    /// Seal the file to this public key (X25519, PEM)
    #[arg(long = "sealTo", value_name = "PATH")]
    seal_to: Option<PathBuf>,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
    #[command(flatten)]
    file: ConfigFile<Flags>,
}

impl Backup {
    pub(super) fn execute(self) -> ExitCode {
        let output = self.output;
        Reply::print(&self.back_up(), output)
    }

    fn back_up(self) -> Result<Reply, CommandError> {
        let config = self.file.load(ServerConfig::load)?;
        keep_files_private();
        let key = self.seal_to.as_deref().map(OperatorPublicKey::read).transpose().map_err(CommandError::run)?;
        let source = Source {
            trust_domain: config.trust_domain.clone(),
            server_name: config.server_name.clone(),
            data_store: config.data_store.clone(),
            key_file: config.key_managers.key_file().map(ToOwned::to_owned),
        };
        let made = make(&source, &self.into, key.as_ref(), wall_unix()).map_err(CommandError::run)?;
        Ok(self.reply(&made, key.as_ref(), source.key_file.is_some()))
    }

    fn reply(&self, made: &Manifest, key: Option<&OperatorPublicKey>, has_key_file: bool) -> Reply {
        let sealed_to = key.map(|key| hex(&key.fingerprint()));
        let json = json!({ "file": self.into, "sealed_to": sealed_to, "backup": made });
        let mut text = format!(
            "Backed up into {} at {}:\n  data store at {}\n",
            self.into.display(),
            utc(made.made_at),
            made.datastore
        );
        if made.part(PartName::Keys).is_some() {
            text += "  key file\n";
        }
        text += &match &sealed_to {
            Some(key) => format!("Sealed to the key {key}.\n"),
            None => "Not sealed: whoever reads the file reads what is in it.\n".to_owned(),
        };
        let mut reply = Reply::new(json, text);
        if has_key_file && key.is_none() {
            reply.notes =
                "the key file is not in the backup: seal it (-sealTo), or keep that file yourself\n".to_owned();
        }
        reply
    }
}
