//! `import`: what another make of server has, taken over before the first start.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::directory::prepare_private;
use ironroot_api::tls::KeyExchanges;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::{CommandError, ConfigFile, Output, Reply, block_on, keep_files_private};

use super::run::Flags;
use crate::config::{KeyManagersConfig, ServerConfig};
use crate::store::{Address, Location};
use crate::takeover::{KeyPlace, Report, Rules, Takeover};

/// Where the password is that the connection string does not have. Source: PostgreSQL, "Environment Variables".
const PASSWORD: &str = "PGPASSWORD";

/// The noun.
#[derive(Debug, Subcommand)]
pub(super) enum Import {
    Spire(Spire),
}

impl Import {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::Spire(spire) => spire.execute(),
        }
    }
}

/// Takes over a server of SPIRE's: its entries, agents, bans, join tokens, bundle and CA.
#[derive(Debug, Args)]
#[command(
    after_help = "SPIRE's files and tables are only read: whoever starts spire-server again has what it had. Stop it first; with -dryRun it may run. The data \
        store that the configuration names must be empty. All of it is taken over, or nothing; what cannot be is named, with the reason.
With KeyManager \"disk\" in the configuration (or beside \"pkcs11\", with previous = true) the CA's keys come along, and agents that \
        are running notice nothing. Without it a new CA signs, and agents need the new bundle.
A password of the database is taken from PGPASSWORD where the connection string has none.

Example: ironroot-server import spire -datastore /opt/spire/data/server/datastore.sqlite3 -keys /opt/spire/data/server/keys.json -dryRun"
)]
pub(super) struct Spire {
    /// connection_string of SPIRE's DataStore "sql": the path of its SQLite file, or postgres://USER@HOST/NAME?sslmode=verify-full&sslrootcert=FILE
    #[arg(long, value_name = "PATH|URL")]
    datastore: String,
    /// SPIRE's key file: keys_path of its KeyManager "disk"
    #[arg(long, value_name = "PATH")]
    keys: PathBuf,
    /// Only say what would be taken over
    #[arg(long = "dryRun")]
    dry_run: bool,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
    #[command(flatten)]
    file: ConfigFile<Flags>,
}

impl Spire {
    fn execute(self) -> ExitCode {
        let output = self.output;
        Reply::print(&self.import(), output)
    }

    fn import(self) -> Result<Reply, CommandError> {
        let config = self.file.load(ServerConfig::load)?;
        keep_files_private();
        let rules = rules(&config);
        let database = place(&self.datastore, config.key_exchanges)?;
        let read = Takeover::read(&database, &self.keys, &rules, self.dry_run, wall_unix());
        let takeover = read.map_err(CommandError::run)?;
        if self.dry_run {
            return Ok(reply(takeover.report()));
        }
        prepare_private(&config.data_dir).map_err(CommandError::run)?;
        let store = config.data_store.open(&config.trust_domain).map_err(CommandError::run)?;
        let name = config.data_store.to_string();
        let taken = block_on(async {
            let taken = takeover.take(&store, &name).await;
            store.close().await;
            taken.map_err(CommandError::run)
        });
        Ok(reply(&taken?))
    }
}

/// A path, or what names a database of PostgreSQL. Its password is better not among a command's arguments, which everybody sees.
fn place(text: &str, exchanges: KeyExchanges) -> Result<Location, CommandError> {
    let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    if !is_url && !text.split_ascii_whitespace().any(|word| word.starts_with("host=")) {
        return Ok(Location::Sqlite(PathBuf::from(text)));
    }
    let address = Address::parse(text, exchanges).map_err(CommandError::run)?;
    Ok(Location::Postgres(Box::new(match std::env::var(PASSWORD) {
        Ok(password) => address.with_password(&password),
        Err(_) => address,
    })))
}

fn reply(report: &Report) -> Reply {
    let json = serde_json::to_value(report).expect("texts and numbers are JSON");
    Reply::new(json, report.to_string())
}

fn rules(config: &ServerConfig) -> Rules {
    let attestors = &config.node_attestors;
    let names = [
        ("join_token", attestors.join_token),
        ("tpm2", attestors.tpm2.is_some()),
        ("tpm", attestors.tpm.is_some()),
        ("tpm_devid", attestors.tpm_devid.is_some()),
        ("x509pop", attestors.x509pop.is_some()),
        ("sshpop", attestors.sshpop.is_some()),
        ("http_challenge", attestors.http_challenge.is_some()),
    ];
    Rules {
        trust_domain: config.trust_domain.clone(),
        server: config.server_name.clone(),
        allow_executable_only: config.allow_executable_only,
        attestors: names.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name.to_owned()).collect(),
        keys: key_place(&config.key_managers),
    }
}

/// The key file of this configuration, whether keys are made there or the CA moves away from it at once.
fn key_place(managers: &KeyManagersConfig) -> KeyPlace {
    managers.key_file().map_or(KeyPlace::Nowhere, |path| KeyPlace::File(path.to_owned()))
}
