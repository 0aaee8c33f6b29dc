//! `restore`: a backup, put back.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::directory::prepare_private;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::{CommandError, ConfigFile, Output, Reply, block_on, keep_files_private, shown};

use super::run::Flags;
use crate::backup::{OpenBackup, OperatorKey, RestoreReport, Target};
use crate::config::ServerConfig;
use crate::issuance_log::DIRECTORY;
use crate::older_state::{AcceptError, Accepted, RecoveredBans, accept};

/// Puts a backup back; the server must be stopped.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "All of it is put back, or nothing. What was there is kept beside it, with .replaced after its name. Of that, what may not go back \
        stays: bans, and the CA where it is newer than the backup's. Every join token of the backup is burnt: make new ones. Run it as the user \
        that the server runs as; with -dryRun the server may be running.

Example: ironroot-server restore /mnt/backups/2026-11-26.backup -key operator.key -dryRun
         ironroot-server restore accept -config /etc/ironroot/server.conf"
)]
pub(super) struct Restore {
    /// The backup
    #[arg(value_name = "FILE", required = true)]
    from: Option<PathBuf>,
    /// The private key that opens a sealed one (X25519, PEM)
    #[arg(long, value_name = "PATH")]
    key: Option<PathBuf>,
    /// Only read all of it, and say what is in it and what would change
    #[arg(long = "dryRun", alias = "dry-run")]
    dry_run: bool,
    /// Also a backup that has none of the roots that are here: another server's
    #[arg(long = "otherServer", alias = "other-server")]
    other_server: bool,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
    #[command(flatten)]
    file: ConfigFile<Flags>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Accept(Accept),
}

impl Restore {
    pub(super) fn execute(self) -> ExitCode {
        let Some(Verb::Accept(accept)) = self.verb else {
            let output = self.output;
            return Reply::print(&self.restore(), output);
        };
        Reply::print(&accept.accept(), accept.output)
    }

    fn restore(self) -> Result<Reply, CommandError> {
        let config = self.file.load(ServerConfig::load)?;
        keep_files_private();
        let key = self.key.as_deref().map(OperatorKey::read).transpose().map_err(CommandError::run)?;
        let target = Target {
            trust_domain: config.trust_domain.clone(),
            data_store: config.data_store.clone(),
            key_file: config.key_managers.key_file().map(ToOwned::to_owned),
        };
        let from = self.from.unwrap_or_default();
        let backup = OpenBackup::open(&from, key.as_ref(), target).map_err(CommandError::run)?;
        if self.dry_run {
            return block_on(async { backup.look().await.map(|report| reply(&report)).map_err(CommandError::run) });
        }
        prepare_private(&config.data_dir).map_err(CommandError::run)?;
        let anothers = self.other_server;
        block_on(async {
            backup.restore(wall_unix(), anothers).await.map(|report| reply(&report)).map_err(CommandError::run)
        })
    }
}

fn reply(report: &RestoreReport) -> Reply {
    Reply::new(serde_json::to_value(report).expect("texts and numbers are JSON"), report.to_string())
}

/// Accepts a state that is older than what was here before; the server then goes on with it.
#[derive(Debug, Args)]
#[command(
    after_help = "After a restore, or where a server has noticed that its database was put back (healthcheck says so), it issues nothing until \
        then. Look first: entries and bans are those of the older state. Join tokens are burnt; agents that the state does not know attest \
        anew; bans that were given since are given again where restore has carried them over or the issuance log has them. Run it as the user that the server \
        runs as, whether it is running and waits, or is stopped.

Example: ironroot-server restore accept -config /etc/ironroot/server.conf"
)]
struct Accept {
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
    #[command(flatten)]
    file: ConfigFile<Flags>,
}

impl Accept {
    fn accept(&self) -> Result<Reply, CommandError> {
        let config = self.file.load(ServerConfig::load)?;
        keep_files_private();
        // One that is not there is not made.
        let older = config.data_store.older_state(&config.trust_domain).map_err(CommandError::run)?;
        if !older.is_some_and(|older| older.waits()) {
            return Err(CommandError::run(AcceptError::NothingWaits));
        }
        let store = config.data_store.open(&config.trust_domain).map_err(CommandError::run)?;
        let accepted = block_on(async {
            let issuance = config.data_dir.join(DIRECTORY);
            let accepted = accept(&store, config.rollback_mark.as_deref(), &issuance, wall_unix()).await;
            store.close().await;
            accepted.map_err(CommandError::run)
        })?;
        Ok(Reply::new(serde_json::to_value(&accepted).expect("texts and numbers are JSON"), told(&accepted)))
    }
}

fn told(accepted: &Accepted) -> String {
    let Accepted { evidence, burnt_join_tokens, recovered_bans: RecoveredBans { agents, devices }, log_not_read } =
        accepted;
    let mut text = format!("Accepted: the database {evidence}.\nJoin tokens burnt: {burnt_join_tokens}.\n");
    for (banned, what) in [(agents, "agents"), (devices, "devices")] {
        if !banned.is_empty() {
            text += &format!("Banned again, as the issuance log has it ({what}): {}.\n", shown(banned.join(", ")));
        }
    }
    if let Some(why) = log_not_read {
        text += &format!("The issuance log cannot be read ({}): bans given since must be given again.\n", shown(why));
    }
    text + "The server goes on with it.\n"
}
