//! `ironroot.api.agent.explain.v1`: why a process gets what it gets.
//!
//! ```text
//!  workloads' socket ─► ExplainCaller: about the caller itself; of entries only those that are its own
//!  admin socket ─────► ExplainProcess: about any process by its number; the entries that nearly match, and how the agent is
//! ```
//! What an entry that is not its own asks for, or that there is one, is no caller's to know: it would learn what to imitate. It costs
//! its user a turn, as any other question does.

mod explanation;

use ironroot_api::pb::explain::explain_any_server::ExplainAny;
use ironroot_api::pb::explain::explain_server::Explain;
use ironroot_api::pb::explain::{ExplainCallerRequest, ExplainProcessRequest, Explanation};
use ironroot_attest::workload::{Peer, WorkloadRefusal};
use tonic::{Code, Request, Response, Status};

use super::door::Admitted;
use super::serving::{Found, Serving, attestation_failed};
use crate::report::Reports;
use explanation::{Told, explanation};

/// On the workloads' socket.
pub(super) struct ExplainApi(pub Serving);

/// On the admin socket.
pub(super) struct ExplainAnyApi {
    pub serving: Serving,
    pub reports: Reports,
}

#[tonic::async_trait]
impl Explain for ExplainApi {
    async fn explain_caller(&self, request: Request<ExplainCallerRequest>) -> Result<Response<Explanation>, Status> {
        let looked = match self.0.caller(&request) {
            Ok(caller) => self.0.look_at(&caller).await.map(|(found, _)| (caller.peer, found)),
            Err(status) => Err(status),
        };
        match looked {
            Ok((peer, found)) => Ok(Response::new(told(&self.0, &peer, &found, Told::Caller))),
            Err(status) => untold(status, &request).map(Response::new),
        }
    }
}

#[tonic::async_trait]
impl ExplainAny for ExplainAnyApi {
    async fn explain_process(&self, request: Request<ExplainProcessRequest>) -> Result<Response<Explanation>, Status> {
        let asking = self.serving.caller(&request)?;
        let pid = request.into_inner().pid;
        if pid <= 0 {
            return Err(Status::invalid_argument("a process is named by its number, which is above 0"));
        }
        let report = self.reports.first();
        let looked = self.serving.look_at_named(&asking, pid).await;
        match looked {
            Ok(Ok((peer, found))) => {
                Ok(Response::new(told(&self.serving, &peer, &found, Told::Administrator(&report))))
            }
            Ok(Err(WorkloadRefusal::Exited { pid })) => Err(Status::not_found(format!("there is no process {pid}"))),
            Ok(Err(other)) => Ok(Response::new(Explanation { pid, ..refused(attestation_failed(&other))? })),
            Err(status) => Ok(Response::new(Explanation { pid, ..refused(status)? })),
        }
    }
}

fn told(serving: &Serving, peer: &Peer, found: &Found, told: Told<'_>) -> Explanation {
    let (pid, uid, gid) = (peer.pid(), peer.uid(), peer.gid());
    Explanation { pid, uid, gid, ..explanation(&serving.published(), found, serving.now(), told) }
}

/// Of a caller that cannot be attested: what the kernel says of it, and why.
fn untold(status: Status, request: &Request<impl Sized>) -> Result<Explanation, Status> {
    let caller = request.extensions().get::<Admitted>().map(Admitted::caller);
    let uid = caller.map_or(0, |caller| caller.connection().uid());
    let pid = caller.and_then(|caller| caller.pid()).unwrap_or_default();
    Ok(Explanation { pid, uid, ..refused(status)? })
}

fn refused(status: Status) -> Result<Explanation, Status> {
    match status.code() {
        Code::Unavailable => Ok(Explanation {
            refused: status.message().to_owned(),
            reasons: vec![status.message().to_owned()],
            ..Explanation::default()
        }),
        _ => Err(status),
    }
}
