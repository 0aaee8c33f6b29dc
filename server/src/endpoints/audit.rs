//! One line per certificate issued, request refused and fact changed: who, what, outcome.

use std::fmt::Display;

use tonic::Status;

use super::caller::Caller;

/// The audit trail; a log target of its own (`audit`) that configuration can switch off.
#[derive(Clone, Copy, Debug)]
pub struct Audit {
    enabled: bool,
}

impl Audit {
    /// `enabled` is the configuration's `audit_log_enabled`.
    pub fn new(enabled: bool) -> Self {
        Self { enabled }
    }

    /// Records that `caller` had `method` done to `object` (an ID, a serial).
    pub fn done(&self, caller: &Caller, method: &str, object: impl Display) {
        if self.enabled {
            let (object, caller) = (object.to_string(), caller.to_string());
            tracing::info!(target: "audit", r#type = "audit", status = "success", method, object, caller, "API accessed");
        }
    }

    /// Records that `method` on `object` was refused, and passes the status on.
    pub fn refused(&self, caller: &Caller, method: &str, object: impl Display, status: Status) -> Status {
        if self.enabled {
            let (object, caller) = (object.to_string(), caller.to_string());
            tracing::warn!(
                target: "audit", r#type = "audit", status = "error", status_code = ?status.code(),
                status_message = status.message(), method, object, caller, "API accessed"
            );
        }
        status
    }

    /// Records that `caller` lacks the right to what it called, and passes the status on.
    pub fn denied(&self, caller: &Caller, status: Status) -> Status {
        self.refused(caller, "authorization", "", status)
    }
}
