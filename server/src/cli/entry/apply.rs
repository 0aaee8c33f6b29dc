//! `entry apply`: the entries of a file are those of the server; and what would have to be done for that.

mod metrics;
mod owner;
mod plan;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest, ListEntriesRequest,
};
use ironroot_api::pb::types::Entry;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::{CommandError, Reply, replace_file};
use tonic::transport::Channel;

use super::advice;
use super::batches::{AT_ONCE, MAX_ANSWER_BYTES, patience};
use super::data_file::{self, Read};
use crate::cli::connection::Connection;
use owner::Owner;
use plan::Plan;
use report::{Done, Outcome, reply};

/// Mode of a file that another user's exporter reads; it names nobody.
const READABLE: u32 = 0o644;

/// Brings the server's entries to what a file says; -dryRun says what that would change.
#[derive(Debug, Args)]
#[command(
    after_help = "The file has the form that entry show -output json prints; IDs, revisions and times may be left out. An entry without an ID is the one with its \
        SPIFFE ID, parent and selectors. With -owner the entries of the file get IDs that begin with the name, and -prune deletes those with such IDs \
        that are not in the file any more: entries of others are never touched. Mistakes in the file are all named, and nothing is changed.
With -dryRun the exit code is 1 if the server differs from the file: run it by the clock, and it tells of drift. -metrics writes the same for
        Prometheus' node_exporter, which shows files of its textfile directory.

Example: ironroot-server entry apply -data entries.json -dryRun
Example: ironroot-server entry apply -data entries.json -owner platform -prune"
)]
pub(in crate::cli) struct Apply {
    #[command(flatten)]
    connection: Connection,
    /// The JSON file with entries; - for standard input
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Whose entries the file has: 1 to 32 letters, digits, - and _
    #[arg(long, value_name = "NAME")]
    owner: Option<Owner>,
    /// Delete the owner's entries that are not in the file
    #[arg(long, requires = "owner")]
    prune: bool,
    /// Change nothing; say what would be changed
    #[arg(long = "dryRun", alias = "dry-run")]
    dry_run: bool,
    /// With -dryRun: write how the server differs as metrics into this file, NAME.prom
    #[arg(long, value_name = "PATH", requires = "dry_run", value_parser = textfile)]
    metrics: Option<PathBuf>,
    /// Delete or change entries also if others name their SPIFFE IDs as parent: those end with them
    #[arg(long)]
    force: bool,
}

impl Apply {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run_for(patience(true), async |connection| {
            let Read { content: wanted, notes } = data_file::entries_or_mistakes(&self.data)?;
            let wanted = plan::wanted(wanted, self.owner.as_ref()).map_err(|mistakes| self.mistaken(mistakes))?;
            let channel = connection.open().await?;
            let mut client = EntryClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
            let plan = Plan::new(wanted, list(&mut client).await?, self.owner.as_ref(), self.prune);
            self.write_metrics(&plan)?;
            if !plan.conflicts.is_empty() || self.dry_run {
                return Ok(Reply { notes, ..reply(&plan, Outcome::NotDone) });
            }
            if !self.force {
                self.refuse_to_empty(&plan)?;
                refuse_orphans(channel.clone(), &plan).await?;
            }
            let done = carry_out(&mut client, &plan).await;
            let changed = plan.create.iter().chain(plan.change.iter().map(|change| &change.to)).cloned().collect();
            let notes = notes + &advice::notes(channel, changed).await;
            Ok(Reply { notes, ..reply(&plan, Outcome::Done(done)) })
        })
    }

    fn write_metrics(&self, plan: &Plan) -> Result<(), CommandError> {
        let Some(path) = &self.metrics else { return Ok(()) };
        let page = metrics::metrics(plan, self.owner.as_ref(), wall_unix());
        let failed = |source| CommandError::File { doing: "write", path: path.clone(), source };
        replace_file(path, page.as_bytes(), READABLE).map_err(failed)
    }

    /// A program that found nothing to write a file of is more likely than an owner without entries.
    fn refuse_to_empty(&self, plan: &Plan) -> Result<(), CommandError> {
        let is_empty = plan.create.is_empty() && plan.change.is_empty() && plan.unchanged == 0;
        if !is_empty || plan.delete.is_empty() {
            return Ok(());
        }
        let (file, all) = (self.data.display(), plan.delete.len());
        Err(CommandError::Usage(format!(
            "{file} has no entries, and -prune would delete all {all} of this owner: nothing was changed; give -force to do it all the same"
        )))
    }

    fn mistaken(&self, mistakes: Vec<String>) -> CommandError {
        let all = data_file::all_of(&self.data, mistakes).message();
        CommandError::Malformed(format!("{all}\nnothing was changed"))
    }
}

/// node_exporter passes over other names in silence.
fn textfile(text: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    match path.extension().is_some_and(|extension| extension == "prom") {
        true => Ok(path),
        false => Err("node_exporter reads files alone whose names end in .prom"),
    }
}

async fn list(client: &mut EntryClient<Channel>) -> Result<Vec<Entry>, CommandError> {
    let page_size = i32::try_from(AT_ONCE).expect("some hundred");
    let mut request = ListEntriesRequest { page_size, ..ListEntriesRequest::default() };
    let mut entries = Vec::new();
    loop {
        let page = client.list_entries(request.clone()).await?.into_inner();
        entries.extend(page.entries);
        if page.next_page_token.is_empty() {
            return Ok(entries);
        }
        request.page_token = page.next_page_token;
    }
}

/// What would take entries outside the plan out of every agent's reach.
async fn refuse_orphans(channel: Channel, plan: &Plan) -> Result<(), CommandError> {
    let changed = plan.change.iter().map(|change| change.to.id.clone());
    let ids: Vec<String> = changed.chain(plan.delete.iter().map(|entry| entry.id.clone())).collect();
    let kept = |id: &str, old: &_| {
        plan.change.iter().any(|change| change.to.id == id && change.to.spiffe_id.as_ref() == Some(old))
    };
    advice::refuse_orphans(channel, ids, kept).await
}

/// New entries first, old ones last: a workload whose entry is replaced by another is served all the time. So nothing is deleted where
/// something was refused before, or the server went away.
async fn carry_out(client: &mut EntryClient<Channel>, plan: &Plan) -> Done {
    let mut done = Done::default();
    for entries in plan.create.chunks(AT_ONCE) {
        let request = BatchCreateEntryRequest { entries: entries.to_vec(), output_mask: None };
        let answer = client.batch_create_entry(request).await;
        let results =
            answer.map(|answer| answer.into_inner().results.into_iter().map(|result| result.status).collect());
        done.created += done.note(entries.iter().map(plan::name), results);
    }
    for changes in plan.change.chunks(AT_ONCE) {
        let entries = changes.iter().map(|change| change.to.clone()).collect();
        let request = BatchUpdateEntryRequest { entries, ..BatchUpdateEntryRequest::default() };
        let answer = client.batch_update_entry(request).await;
        let results =
            answer.map(|answer| answer.into_inner().results.into_iter().map(|result| result.status).collect());
        done.changed += done.note(changes.iter().map(|change| plan::name(&change.to)), results);
    }
    if !done.failures.is_empty() {
        done.kept = plan.delete.len();
        return done;
    }
    for entries in plan.delete.chunks(AT_ONCE) {
        let request = BatchDeleteEntryRequest { ids: entries.iter().map(|entry| entry.id.clone()).collect() };
        let answer = client.batch_delete_entry(request).await;
        let results =
            answer.map(|answer| answer.into_inner().results.into_iter().map(|result| result.status).collect());
        done.deleted += done.note(entries.iter().map(plan::name), results);
    }
    done
}
