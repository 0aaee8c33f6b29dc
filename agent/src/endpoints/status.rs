//! `ironroot.api.agent.status.v1`: how the agent is, for whoever may open the admin socket.

use std::time::Instant;

use ironroot_api::certificate::Certificate;
use ironroot_api::pb::agent_status::get_status_response::{Ending, Server};
use ironroot_api::pb::agent_status::status_server::Status as StatusService;
use ironroot_api::pb::agent_status::{GetStatusRequest, GetStatusResponse};
use tonic::{Request, Response, Status};

use super::door::Admitted;
use super::serving::Serving;
use crate::identities::Identities;
use crate::report::{Report, Reports};

/// How many SVIDs are told of that end first.
const NEXT_TO_END: usize = 10;

/// Ours: `ironroot.api.agent.status.v1.Status`.
pub(super) struct StatusApi {
    pub serving: Serving,
    pub reports: Reports,
    /// How the chip is reached, if there is one.
    pub chip: Option<String>,
    /// When the agent began to answer.
    pub began: Instant,
}

#[tonic::async_trait]
impl StatusService for StatusApi {
    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let all = self.serving.published();
        let first = self.reports.first();
        let local_authority = first.local_authority.clone();
        let (first, servers) = (server(first), self.reports.all());
        let is_cache_sealed = servers.iter().any(|report| report.is_cache_sealed);
        let has_unopened_cache = servers.iter().any(|report| report.has_unopened_cache);
        let servers = if servers.len() > 1 { servers.into_iter().map(server).collect() } else { Vec::new() };
        // Whoever asks is not served anything.
        let asker = request.extensions().get::<Admitted>().map(Admitted::caller);
        let asker = asker.ok_or_else(|| Status::internal("request has not passed the door"))?;
        let held = asker.connection().occupancy_of_others();
        Ok(Response::new(GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: self.began.elapsed().as_secs().try_into().unwrap_or(i64::MAX),
            trust_domain: all.trust_domain().to_string(),
            standing: first.standing,
            spiffe_id: first.spiffe_id,
            attested_until: first.attested_until,
            server: first.server,
            synced_at: first.synced_at,
            is_told_of_changes: first.is_told_of_changes,
            failures: first.failures,
            last_failure: first.last_failure,
            next_contact: first.next_contact,
            is_cache_sealed,
            chip: self.chip.clone().unwrap_or_default(),
            entries: count(all.entries().count()),
            x509_svids: count(all.iter().len()),
            jwt_svids: count(self.serving.jwt().count()),
            users: count(held.users),
            connections: count(held.connections),
            streams: count(held.streams),
            next_to_end: next_to_end(&all),
            issuance_log: first.issuance_log,
            servers,
            local_authority,
            has_unopened_cache,
        }))
    }
}

fn server(report: Report) -> Server {
    let leaf = report.chain.as_ref().and_then(|chain| Certificate::parse(&chain.iter().next()?).ok());
    let id = leaf.as_ref().and_then(|leaf| leaf.spiffe_id().ok()).map(|id| id.to_string());
    Server {
        name: report.name,
        server: report.server,
        standing: report.stands.to_string(),
        spiffe_id: id.unwrap_or_default(),
        attested_until: leaf.map_or(0, |leaf| leaf.not_after_unix()),
        synced_at: report.synced_unix,
        is_told_of_changes: report.is_told_of_changes,
        failures: report.failures.try_into().unwrap_or(i32::MAX),
        last_failure: report.last_failure.unwrap_or_default(),
        next_contact: report.next_contact_unix,
        issuance_log: report.issuance_log,
    }
}

fn next_to_end(all: &Identities) -> Vec<Ending> {
    let mut ends: Vec<_> = all.ends().map(|(identity, end)| (end, identity.spiffe_id())).collect();
    ends.sort_unstable();
    let ending = |(ends_at, id): (i64, &ironroot_api::SpiffeId)| Ending { spiffe_id: id.to_string(), ends_at };
    ends.into_iter().take(NEXT_TO_END).map(ending).collect()
}

fn count(number: usize) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}
