//! `entry delete`.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::entry::BatchDeleteEntryRequest;
use ironroot_api::pb::entry::batch_delete_entry_response::Result as Deleted;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::types::Status;
use ironroot_shell::command_line::{CommandError, Reply, code_name, shown};
use serde_json::{Value, json};
use tonic::Code;

use super::advice;
use super::batches::{in_batches, patience};
use super::data_file::{self, Read};
use crate::cli::connection::Connection;
use crate::cli::messages;

/// Deletes entries; agents stop serving them at their next sync.
#[derive(Debug, Args)]
#[command(after_help = "The file has the form {\"ids\": [\"...\"]}.
Example: ironroot-server entry delete -entryID 2f6e1a0c-8c5e-4f0e-9a57-0d7b7f2f2c11")]
pub(in crate::cli) struct Delete {
    #[command(flatten)]
    connection: Connection,
    /// ID of the entry to delete, as entry show prints it
    #[arg(long = "entryID", value_name = "ENTRY", required_unless_present = "file", conflicts_with = "file")]
    entry_ids: Vec<String>,
    /// A JSON file with IDs; - for standard input
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Delete them also if other entries name them as parent: those end with them
    #[arg(long)]
    force: bool,
}

impl Delete {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run_for(patience(self.file.is_some()), async |connection| {
            let Read { content: ids, notes } = match &self.file {
                Some(path) => data_file::ids(path)?,
                None => Read { content: vec![self.only_id()?], notes: String::new() },
            };
            let channel = connection.open().await?;
            if !self.force {
                advice::refuse_orphans(channel.clone(), ids.clone(), |_, _| false).await?;
            }
            let mut client = EntryClient::new(channel);
            let delete =
                async |ids| Ok(client.batch_delete_entry(BatchDeleteEntryRequest { ids }).await?.into_inner().results);
            let results = in_batches(&ids, delete, unanswered).await?;
            Ok(Reply { notes, ..reply(&results) })
        })
    }
}

impl Delete {
    /// SPIRE's command deletes the last that is named, and says nothing of the others.
    fn only_id(&self) -> Result<String, CommandError> {
        match self.entry_ids.as_slice() {
            [id] => Ok(id.clone()),
            ids => Err(CommandError::Usage(format!(
                "-entryID is given {} times, and one entry is deleted at a time: nothing was deleted; for several give -file with {{\"ids\": [...]}}",
                ids.len()
            ))),
        }
    }
}

/// What became of an entry whose request had no answer.
#[expect(clippy::ptr_arg, reason = "an item of the list of IDs")]
fn unanswered(id: &String, status: &tonic::Status) -> Deleted {
    let status = Status { code: status.code() as i32, message: status.message().to_owned() };
    Deleted { status: Some(status), id: id.clone() }
}

fn reply(results: &[Deleted]) -> Reply {
    let json: Vec<Value> = results
        .iter()
        .map(|result| messages::result(result.status.as_ref(), "id", Some(result.id.clone().into())))
        .collect();
    let mut reply = Reply::new(json!({ "results": json }), "");
    let mut deleted = 0;
    for result in results {
        let status = result.status.clone().unwrap_or_default();
        if status.code == Code::Ok as i32 {
            deleted += 1;
            writeln!(reply.text, "Deleted entry with ID: {}", shown(&result.id))
        } else {
            let (code, message) = (code_name(Code::from(status.code)), status.message);
            let id = shown(&result.id);
            writeln!(reply.complaints, "Failed to delete entry with ID {id} (code: {code}, msg: {message:?})")
        }
        .expect("writing to a string cannot fail");
    }
    let failed = results.len() - deleted;
    reply.failed = failed > 0;
    if reply.failed {
        reply.complaints.push_str("Error: failed to delete one or more entries\n");
    }
    reply.text.push_str(&match (deleted, failed) {
        (_, 0) => format!("\n\nDeleted {deleted} entries successfully\n"),
        (0, _) => format!("\n\nFailed to delete {failed} entries\n"),
        _ => format!("\n\nDeleted {deleted} entries successfully, but failed to delete {failed} entries\n"),
    });
    reply
}
