//! One line per certificate issued, request refused and fact changed: who, what, outcome.
//!
//! Lines are of level INFO: at a level above there are none. What was done always has its line, also when whoever asked for it has
//! hung up meanwhile ([`unbroken`](super::unbroken)); a certificate that was signed for such a caller is nobody's, and has none. Nor
//! has what an agent only says or shows: its version, and that it uses its renewed certificate. Refusals cost a caller nothing, so
//! their lines are limited per caller, and what was left out is counted; foreign values are clipped.

mod file;

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::SpiffeId;
use ironroot_shell::logging::{LineRate, LogLimit, clipped};
use serde_json::{Value, json};
use tonic::Status;

pub use file::AuditFile;

use super::caller::Source;
use crate::issuance_log::{Event, IssuanceLog};
use crate::rights::Caller;
use ironroot_text::hex::hex;

/// Lines about one caller's refusals, and about all callers'.
const REFUSALS_PER_CALLER: LineRate = LineRate { burst: 100, interval: Duration::from_millis(200) };
const REFUSALS_IN_ALL: LineRate = LineRate { burst: 1000, interval: Duration::from_millis(20) };

/// The audit trail; a log target of its own (`audit`) that configuration can switch off.
#[derive(Debug)]
pub struct Audit {
    enabled: bool,
    refusals: LogLimit<Source>,
    file: Option<Arc<AuditFile>>,
    /// Where all that was done is chained, whether or not there are lines.
    log: IssuanceLog,
}

impl Audit {
    /// `enabled` is the configuration's `audit_log_enabled`; lines go to `file`, too, if there is one.
    pub fn new(enabled: bool, file: Option<Arc<AuditFile>>, log: IssuanceLog) -> Self {
        Self { enabled, refusals: LogLimit::new(REFUSALS_PER_CALLER, REFUSALS_IN_ALL), file, log }
    }

    /// Why nothing may be changed or signed now: lines must be written, and cannot be.
    pub fn silence(&self) -> Option<Status> {
        //= FLT-S20 server faults: "where lines are required, nothing is changed or signed without them"
        let is_silent = self.file.as_ref().is_some_and(|file| file.must_not_go_on());
        is_silent.then(|| {
            Status::unavailable(
                "the audit's lines cannot be written, and audit_log_required is set: nothing is changed or signed until they can; the server's log says why",
            )
        })
    }

    /// The file of its own, if there is one.
    pub fn file(&self) -> Option<&Arc<AuditFile>> {
        self.file.as_ref()
    }

    /// Records that `caller` had `method` done to `object` (an ID, a serial).
    pub fn done(&self, caller: &Caller, method: &str, object: impl Display) {
        let (object, who) = (object.to_string(), caller.to_string());
        if self.enabled {
            let (uid, pid) = local_process(caller);
            tracing::info!(
                target: "audit", r#type = "audit", status = "success", method, object = %clipped(&object),
                caller = who, caller_uid = uid, caller_pid = pid, "API accessed"
            );
            self.write(|| {
                json!({
                    "status": "success", "method": method, "object": clipped(&object).to_string(), "caller": who,
                    "caller_uid": uid, "caller_pid": pid,
                })
            });
        }
        self.log.append(Event { method: method.to_owned(), object, by: who });
    }

    /// Records that an agent was banned, and in a line of its own the certificate that it attests by, if it does: under another ID it is
    /// the same agent.
    pub fn banned_agent(&self, caller: &Caller, agent: &SpiffeId, certificate_sha256: Option<[u8; 32]>) {
        self.done(caller, "BanAgent", agent);
        if let Some(hash) = certificate_sha256 {
            self.done(caller, "BanAgent", format_args!("certificate {}: {agent}", hex(&hash)));
        }
    }

    /// Records that a device was banned, and its agents with it. Bans are given again from these lines to an older database: see
    /// [`older_state`](crate::older_state).
    pub fn banned(&self, caller: &Caller, ek_sha256: &[u8; 32], agents: &[SpiffeId]) {
        let device = hex(ek_sha256);
        self.done(caller, "BanDevice", &device);
        agents.iter().for_each(|agent| self.done(caller, "BanDevice", format_args!("{device}: {agent}")));
    }

    fn write(&self, line: impl FnOnce() -> Value) {
        if let Some(file) = &self.file {
            file.write(line());
        }
    }

    /// Records that `method` on `object` was refused, and passes the status on.
    pub fn refused(&self, caller: &Caller, method: &str, object: impl Display, status: Status) -> Status {
        self.record_refusal(caller, method, &object, None, &status);
        status
    }

    /// Records that `caller` lacks the right to the method at `path`, and passes the status on.
    pub fn denied(&self, caller: &Caller, path: &str, status: Status) -> Status {
        let method = path.rsplit('/').next().unwrap_or_default();
        self.refused(caller, method, "", status)
    }

    /// Records that a node was not attested, with the device that it claimed to be (SHA-256 of its endorsement key) if it got
    /// that far, and passes the status on.
    pub fn attestation_refused(&self, caller: &Caller, device: Option<&[u8; 32]>, status: Status) -> Status {
        self.record_refusal(caller, "AttestAgent", &"node", device, &status);
        status
    }

    fn record_refusal(
        &self,
        caller: &Caller,
        method: &str,
        object: &dyn Display,
        device: Option<&[u8; 32]>,
        status: &Status,
    ) {
        if !self.enabled {
            return;
        }
        let Some(pass) = self.refusals.admit(Source::of(caller), Instant::now()) else { return };
        let (object, who, device) = (object.to_string(), caller.to_string(), device.map(hex));
        let (uid, pid) = local_process(caller);
        tracing::warn!(
            target: "audit", r#type = "audit", status = "error", status_code = ?status.code(),
            status_message = %clipped(status.message()), method, object = %clipped(&object), device,
            caller = who, caller_uid = uid, caller_pid = pid, suppressed = pass.suppressed, "API accessed"
        );
        self.write(|| {
            json!({
                "status": "error", "status_code": format!("{:?}", status.code()),
                "status_message": clipped(status.message()).to_string(), "method": method,
                "object": clipped(&object).to_string(), "device": device, "caller": who, "caller_uid": uid, "caller_pid": pid,
                "suppressed": pass.suppressed,
            })
        });
    }
}

/// The uid and pid of a caller on the admin socket.
fn local_process(caller: &Caller) -> (Option<u32>, Option<i32>) {
    match caller {
        Caller::Local(peer) => (Some(peer.uid), Some(peer.pid)),
        Caller::Remote(_) => (None, None),
    }
}
