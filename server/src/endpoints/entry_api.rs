//! `spire.api.server.entry.v1`: registration entries for administrators, authorised entries for agents.
//!
//! The changes of a batch are queued one after the other, and then their answers are waited for together: they are done in the
//! batch's order, and share transactions.

mod sent;
mod sync;

pub use sent::SentView;

use std::sync::Arc;

use crate::facts::entry::RegistrationEntry;
use crate::registry::EntryFilter;
use ironroot_api::pb::entry::{
    BatchCreateEntryRequest, BatchCreateEntryResponse, BatchDeleteEntryRequest, BatchDeleteEntryResponse,
    BatchUpdateEntryRequest, BatchUpdateEntryResponse, CountEntriesRequest, CountEntriesResponse,
    GetAuthorizedEntriesRequest, GetEntryRequest, ListEntriesRequest, ListEntriesResponse,
    SyncAuthorizedEntriesRequest, batch_create_entry_response, batch_delete_entry_response,
    batch_update_entry_response,
};
use ironroot_api::pb::entry_encoded::entry_server::Entry;
use ironroot_api::pb::entry_encoded::{GetAuthorizedEntriesResponse, SyncAuthorizedEntriesResponse};
use ironroot_api::pb::types;
use ironroot_api::tls::TlsPeer;
use ironroot_attest::{Selector, SelectorSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming};

use super::accept::Watching;
use super::caller::granted;
use super::policy::MAX_ENTRIES;
use super::{ServerState, count, invalid, item_ok, item_status, registry_status};
use crate::registry::{Created, RegistryError};
use crate::rights::{Administrator, AuthenticatedAgent};
use crate::store::Queued;

/// SPIRE's `spire.api.server.entry.v1.Entry`.
#[derive(Clone, Debug)]
pub struct EntryApi(pub(super) Arc<ServerState>);

#[tonic::async_trait]
impl Entry for EntryApi {
    type SyncAuthorizedEntriesStream = ReceiverStream<Result<SyncAuthorizedEntriesResponse, Status>>;

    async fn count_entries(
        &self,
        request: Request<CountEntriesRequest>,
    ) -> Result<Response<CountEntriesResponse>, Status> {
        let _: Administrator = granted(&request)?;
        let request = request.into_inner();
        let filter =
            EntryFilter::from_count_pb(request.filter.as_ref(), &self.0.trust_domain).map_err(|e| invalid(&e))?;
        Ok(Response::new(CountEntriesResponse { count: count(self.0.registry.count_entries(&filter)) }))
    }

    async fn list_entries(
        &self,
        request: Request<ListEntriesRequest>,
    ) -> Result<Response<ListEntriesResponse>, Status> {
        let _: Administrator = granted(&request)?;
        let request = request.into_inner();
        let filter = EntryFilter::from_pb(request.filter.as_ref(), &self.0.trust_domain).map_err(|e| invalid(&e))?;
        let page =
            self.0.registry.list_entries(&filter, request.page_size, &request.page_token).map_err(registry_status)?;
        let mask = request.output_mask.as_ref();
        Ok(Response::new(ListEntriesResponse {
            entries: page.items.iter().map(|entry| entry.to_pb_masked(mask)).collect(),
            next_page_token: page.next_page_token,
        }))
    }

    async fn get_entry(&self, request: Request<GetEntryRequest>) -> Result<Response<types::Entry>, Status> {
        let _: Administrator = granted(&request)?;
        let request = request.into_inner();
        if request.id.is_empty() {
            return Err(Status::invalid_argument("missing ID"));
        }
        let entry = self.0.registry.entry(&request.id).ok_or_else(|| Status::not_found("entry not found"))?;
        Ok(Response::new(entry.to_pb_masked(request.output_mask.as_ref())))
    }

    async fn batch_create_entry(
        &self,
        request: Request<BatchCreateEntryRequest>,
    ) -> Result<Response<BatchCreateEntryResponse>, Status> {
        let by: Administrator = granted(&request)?;
        let request = request.into_inner();
        within_batch(request.entries.len())?;
        let (mask, now_unix) = (request.output_mask.as_ref(), self.0.now_unix());
        let creations = request.entries.iter().map(|entry| self.create(&by, entry, now_unix));
        let outcomes = in_order(creations, |error| not_done("create", error)).await;
        let result = |outcome| match outcome {
            Ok(Created::New(entry)) => {
                self.0.audit.done(
                    by.caller(),
                    "BatchCreateEntry",
                    format_args!("{} {}", entry.id(), entry.spiffe_id()),
                );
                (item_ok(), Some(entry.to_pb_masked(mask)))
            }
            Ok(Created::Similar(entry)) => {
                let status = Status::already_exists("similar entry already exists");
                (
                    item_status(&self.0.audit.refused(by.caller(), "BatchCreateEntry", entry.id(), status)),
                    Some(entry.to_pb_masked(mask)),
                )
            }
            Err(error) => (item_status(&self.0.audit.refused(by.caller(), "BatchCreateEntry", "entry", error)), None),
        };
        let results = outcomes.into_iter().map(result);
        let results =
            results.map(|(status, entry)| batch_create_entry_response::Result { status: Some(status), entry });
        Ok(Response::new(BatchCreateEntryResponse { results: results.collect() }))
    }

    async fn batch_update_entry(
        &self,
        request: Request<BatchUpdateEntryRequest>,
    ) -> Result<Response<BatchUpdateEntryResponse>, Status> {
        let by: Administrator = granted(&request)?;
        let request = request.into_inner();
        within_batch(request.entries.len())?;
        let (input, output) = (request.input_mask.as_ref(), request.output_mask.as_ref());
        let updates = request.entries.iter().map(|entry| self.update(&by, entry, input));
        let outcomes = in_order(updates, |error| not_done("update", error)).await;
        let result = |(outcome, asked): (Result<Arc<RegistrationEntry>, Status>, &types::Entry)| match outcome {
            Ok(updated) => {
                self.0.audit.done(by.caller(), "BatchUpdateEntry", updated.id());
                (item_ok(), Some(updated.to_pb_masked(output)))
            }
            Err(error) => (item_status(&self.0.audit.refused(by.caller(), "BatchUpdateEntry", &asked.id, error)), None),
        };
        let results = outcomes.into_iter().zip(&request.entries).map(result);
        let results =
            results.map(|(status, entry)| batch_update_entry_response::Result { status: Some(status), entry });
        Ok(Response::new(BatchUpdateEntryResponse { results: results.collect() }))
    }

    async fn batch_delete_entry(
        &self,
        request: Request<BatchDeleteEntryRequest>,
    ) -> Result<Response<BatchDeleteEntryResponse>, Status> {
        let by: Administrator = granted(&request)?;
        let ids = request.into_inner().ids;
        within_batch(ids.len())?;
        let deletions = ids.iter().map(|id| self.delete(&by, id));
        let outcomes = in_order(deletions, registry_status).await;
        let result = |(outcome, id): (Result<(), Status>, String)| {
            let status = match outcome {
                Ok(()) => {
                    self.0.audit.done(by.caller(), "BatchDeleteEntry", &id);
                    item_ok()
                }
                Err(error) => item_status(&self.0.audit.refused(by.caller(), "BatchDeleteEntry", &id, error)),
            };
            batch_delete_entry_response::Result { status: Some(status), id }
        };
        let results = outcomes.into_iter().zip(ids).map(result).collect();
        Ok(Response::new(BatchDeleteEntryResponse { results }))
    }

    async fn get_authorized_entries(
        &self,
        request: Request<GetAuthorizedEntriesRequest>,
    ) -> Result<Response<GetAuthorizedEntriesResponse>, Status> {
        let agent: AuthenticatedAgent = granted(&request)?;
        let view = self.0.registry.authorized_entries(agent.id(), self.0.now_unix());
        let (asked, _, request) = request.into_parts();
        let form = sync::Form::of(request.output_mask.as_ref(), false)?;
        let mut answer = Response::new(GetAuthorizedEntriesResponse { entries: form.encode(view.iter()) });
        self.0.exchange_heads(&agent, &asked, answer.metadata_mut());
        Ok(answer)
    }

    async fn sync_authorized_entries(
        &self,
        request: Request<Streaming<SyncAuthorizedEntriesRequest>>,
    ) -> Result<Response<Self::SyncAuthorizedEntriesStream>, Status> {
        let agent: AuthenticatedAgent = granted(&request)?;
        let connection = request.extensions().get::<Watching<TlsPeer>>();
        let sent = connection.map(|connection| connection.sent.clone()).unwrap_or_default();
        let (asked, _, requests) = request.into_parts();
        let mut heads = MetadataMap::new();
        self.0.exchange_heads(&agent, &asked, &mut heads);
        let answers = sync::converse(self.0.clone(), agent, sent, requests);
        Ok(Response::from_parts(heads, answers, Extensions::new()))
    }
}

impl EntryApi {
    async fn create(&self, by: &Administrator, entry: &types::Entry, now_unix: i64) -> Change<Created> {
        self.refuse_executable_only(entry, None)?;
        Ok(self.0.registry.create_entry(by, entry, now_unix).await)
    }

    async fn update(
        &self,
        by: &Administrator,
        entry: &types::Entry,
        mask: Option<&types::EntryMask>,
    ) -> Change<Arc<RegistrationEntry>> {
        self.refuse_executable_only(entry, mask)?;
        Ok(self.0.registry.update_entry(by, entry, mask).await)
    }

    async fn delete(&self, by: &Administrator, id: &str) -> Change<()> {
        match id {
            "" => Err(Status::invalid_argument("missing entry ID")),
            id => Ok(self.0.registry.delete_entry(by, id).await),
        }
    }

    /// Any local user can run a program, and may make a process look like it: alone it names nobody.
    fn refuse_executable_only(&self, entry: &types::Entry, mask: Option<&types::EntryMask>) -> Result<(), Status> {
        if self.0.allow_executable_only || mask.is_some_and(|mask| !mask.selectors) {
            return Ok(());
        }
        let selectors = entry.selectors.iter().map(|wire| Selector::new(&wire.r#type, &wire.value));
        match selectors.collect::<Result<SelectorSet, _>>() {
            Ok(selectors) if selectors.names_an_executable_only() => Err(Status::invalid_argument(
                "the selectors name a program (unix:path, unix:sha256, unix:fs_verity) and nobody who runs it, so any local user could \
                 claim the identity: add unix:uid, unix:gid or systemd:id, or set allow_executable_only = true for this server and its agents",
            )),
            // What is no selector is refused with the rest of the entry.
            _ => Ok(()),
        }
    }
}

/// A change that is queued, or why it may not be.
type Change<T> = Result<Queued<T, RegistryError>, Status>;

/// What became of each change, in their order. One is queued after the other, so that each meets what those before it left.
async fn in_order<T>(
    changes: impl Iterator<Item = impl Future<Output = Change<T>>>,
    status: impl Fn(RegistryError) -> Status + Copy,
) -> Vec<Result<T, Status>> {
    let mut queued = Vec::new();
    for change in changes {
        queued.push(change.await);
    }
    let answers = queued.into_iter().map(|change| async move { change?.answer().await.map_err(status) });
    futures_util::future::join_all(answers).await
}

/// What could not be done with a well-formed entry, and why. Source: SPIRE, whose words scripts look for.
fn not_done(verb: &str, error: RegistryError) -> Status {
    let malformed = matches!(error, RegistryError::Entry(_));
    let status = registry_status(error);
    if malformed { status } else { Status::new(status.code(), format!("failed to {verb} entry: {}", status.message())) }
}

pub(super) fn within_batch(length: usize) -> Result<(), Status> {
    if length <= MAX_ENTRIES {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("batch has {length} items: at most {MAX_ENTRIES} in a batch; send several")))
}
