//! `log`: the issuance log, read from its files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::utc;
use ironroot_shell::command_line::{CommandError, ConfigFile, Output, Reply, shown};
use ironroot_text::hex::hex;
use serde_json::{Value, json};

use super::run::Flags;
use crate::config::ServerConfig;
use crate::issuance_log::{DIRECTORY, Head, Record, read, read_last, read_last_kept};

/// Most records that are shown at once.
const MAX_SHOWN: usize = 100_000;

/// The noun.
#[derive(Debug, Subcommand)]
pub(super) enum Log {
    Verify(Verify),
    Head(ShowHead),
    Show(Show),
}

impl Log {
    pub(super) fn execute(self) -> ExitCode {
        let (answer, output) = match self {
            Self::Verify(verify) => (verify.answer(), verify.files.output),
            Self::Head(head) => (head.answer(), head.files.output),
            Self::Show(show) => (show.answer(), show.files.output),
        };
        Reply::print(&answer, output)
    }
}

#[derive(Debug, Args)]
struct Files {
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
    #[command(flatten)]
    file: ConfigFile<Flags>,
}

impl Files {
    fn directory(&self) -> Result<PathBuf, CommandError> {
        Ok(self.file.load(ServerConfig::load)?.data_dir.join(DIRECTORY))
    }
}

/// Reads the whole log and proves that each record follows the one before.
#[derive(Debug, Args)]
#[command(
    after_help = "Fails where a record was taken out, put in or changed. Whether it is the log that agents have seen, its head says: compare it with \
        ironroot-agent status. The server may be running.

Example: ironroot-server log verify"
)]
pub(super) struct Verify {
    #[command(flatten)]
    files: Files,
}

impl Verify {
    fn answer(&self) -> Result<Reply, CommandError> {
        let read = read(&self.files.directory()?, |_, _| {}).map_err(CommandError::run)?;
        let reading = read.ok_or_else(|| CommandError::Malformed("there is no issuance log yet".to_owned()))?;
        let (before, records) = (reading.before.sequence, reading.records);
        let json = json!({ "records": records, "first": before + 1, "head": head(&reading.head) });
        let text = match records {
            1 => format!("1 record, number {}.\nHead: {}\n", before + 1, reading.head),
            _ => format!(
                "{records} records, from number {} on, follow each other.\nHead: {}\n",
                before + 1,
                reading.head
            ),
        };
        Ok(Reply::new(json, text))
    }
}

/// Shows how far the log has come.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server log head -output json")]
pub(super) struct ShowHead {
    #[command(flatten)]
    files: Files,
}

impl ShowHead {
    fn answer(&self) -> Result<Reply, CommandError> {
        let read = read(&self.files.directory()?, |_, _| {}).map_err(CommandError::run)?;
        let reading = read.ok_or_else(|| CommandError::Malformed("there is no issuance log yet".to_owned()))?;
        Ok(Reply::new(head(&reading.head), format!("{}\n", reading.head)))
    }
}

/// Shows the newest records.
#[derive(Debug, Args)]
#[command(
    after_help = "The log rolls over: the oldest segments go. What operators did stays when its segment goes, in files of its own that are no part of the chain; -operators \
        reads both.

Examples:
  ironroot-server log show -last 50
  ironroot-server log show -operators"
)]
pub(super) struct Show {
    /// How many
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    last: usize,
    /// Only what operators did, also from segments that are gone
    #[arg(long)]
    operators: bool,
    #[command(flatten)]
    files: Files,
}

impl Show {
    fn answer(&self) -> Result<Reply, CommandError> {
        let read = if self.operators { read_last_kept } else { read_last };
        let records = read(&self.files.directory()?, self.last.min(MAX_SHOWN)).map_err(CommandError::run)?;
        let text: String = records.iter().map(line).collect();
        let json = serde_json::to_value(&records).expect("texts and numbers are JSON");
        Ok(Reply::new(json!({ "records": json }), text))
    }
}

fn line(Record { body, .. }: &Record) -> String {
    let (method, object, by) = (shown(&body.method), shown(&body.object), shown(&body.by));
    format!("{:>8} {} {method} {object} ({by})\n", body.sequence, utc(body.at))
}

fn head(head: &Head) -> Value {
    json!({ "epoch": head.epoch, "sequence": head.sequence, "hash": hex(&head.hash) })
}
