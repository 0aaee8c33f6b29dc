//! Evidence that one chip runs twice: its counters went back in an attestation that it proved, and a connection that its agent
//! had opened before still asks. A chip that was only set back or cleared has no such connection left: one of the two is a copy
//! (a cloned virtual TPM), and nobody can say which. Both are banned until an operator decides.
//!
//! A copy that never attests works with the copied certificate: it is told, not banned, when both ask in turns (`turns`).
//!
//! Addresses are told, not judged: devices move, and many share one.

mod turns;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::permission_denied;
use ironroot_attest::node::Refusal;
use tokio::time::Instant;
use tonic::Status;

use super::Shared;
use super::caller::{AuthenticatedAgent, Caller};
use super::{device_status, store_status};
use crate::devices::hex;
use crate::node_attestation::AttestationError;
use turns::Turns;

/// How long a contradiction is remembered: the longest that a connection of an agent lives.
const MEMORY: Duration = Duration::from_secs(31 * 60);
/// Contradictions remembered; each needs a chip that was proven. Past it the oldest is forgotten.
const MAX_CONTRADICTIONS: usize = 1024;

/// Chips whose counters went back, and when; and who used which connection last.
#[derive(Debug, Default)]
pub struct Forks {
    contradictions: Mutex<HashMap<[u8; 32], Contradiction>>,
    turns: Turns,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Contradiction {
    seen: Instant,
    address: Option<SocketAddr>,
}

impl Forks {
    /// The chip of that endorsement key was proven at `address` with counters older than those it had shown before.
    fn record(&self, ek_sha256: [u8; 32], address: Option<SocketAddr>, now: Instant) {
        let mut contradictions = self.contradictions();
        contradictions.retain(|_, c| now.saturating_duration_since(c.seen) < MEMORY);
        if contradictions.len() >= MAX_CONTRADICTIONS {
            let oldest = contradictions.iter().min_by_key(|(_, c)| c.seen).map(|(ek, _)| *ek);
            oldest.map(|ek| contradictions.remove(&ek));
        }
        contradictions.insert(ek_sha256, Contradiction { seen: now, address });
    }

    /// Whether any chip is under suspicion: the usual answer, for every call.
    fn is_empty(&self) -> bool {
        self.contradictions().is_empty()
    }

    /// Takes out what contradicts a connection of that chip's agent which was opened at `opened`.
    fn take(&self, ek_sha256: &[u8; 32], opened: Instant) -> Option<Contradiction> {
        let mut contradictions = self.contradictions();
        contradictions.get(ek_sha256).filter(|c| opened < c.seen)?;
        contradictions.remove(ek_sha256)
    }

    fn contradictions(&self) -> MutexGuard<'_, HashMap<[u8; 32], Contradiction>> {
        // Plain values: a panic leaves the map whole.
        self.contradictions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Remembers a refusal that says of a proven chip that its counters went back.
    pub(super) fn note_contradiction(&self, ek_sha256: Option<[u8; 32]>, caller: &Caller, error: &AttestationError) {
        use Refusal::{ResetCountWentBack, RestartCountWentBack};
        let AttestationError::Refused(ResetCountWentBack { .. } | RestartCountWentBack { .. }) = error else { return };
        if let Some(ek_sha256) = ek_sha256 {
            self.forks.record(ek_sha256, address(caller), Instant::now());
        }
    }

    /// Refuses an agent on a connection that was opened before its chip contradicted itself elsewhere, and bans device and
    /// agents: two chips answer to one name.
    pub(super) async fn refuse_fork(&self, agent: &AuthenticatedAgent, opened: Instant) -> Result<(), Status> {
        self.tell_turns(agent, opened);
        if self.forks.is_empty() {
            return Ok(());
        }
        let device = self.registry.agent(agent.id()).and_then(|record| record.ek_sha256);
        let Some((device, contradiction)) = device.and_then(|ek| Some((ek, self.forks.take(&ek, opened)?))) else {
            return Ok(());
        };
        self.devices.ban(&device).await.map_err(device_status)?;
        self.registry.ban_agents_of_device(&device).await.map_err(store_status)?;
        let device = hex(&device);
        tracing::error!(
            device, spiffe_id = %agent.id(), address = address(agent.caller()).map(tracing::field::display),
            other_address = contradiction.address.map(tracing::field::display),
            "a chip runs twice: it was copied. Both are banned. Find out which is right, then: ironroot-server device delete, \
             agent evict, and device import"
        );
        Err(permission_denied(Reason::AgentBanned, "agent is banned: its chip runs twice"))
    }
}

impl Shared {
    /// Says that one certificate is used in turns from two addresses.
    fn tell_turns(&self, agent: &AuthenticatedAgent, opened: Instant) {
        let Some(here) = address(agent.caller()) else { return };
        if let Some(other) = self.forks.turns.note(agent.id(), opened, here, Instant::now()) {
            tracing::warn!(
                spiffe_id = %agent.id(), address = %here, other_address = %other,
                "one certificate is used in turns from two addresses: a copy of its key or chip may be at work. If the device does \
                 not have two ways to here: ironroot-server agent ban, and see which of the two is right"
            );
        }
    }
}

fn address(caller: &Caller) -> Option<SocketAddr> {
    match caller {
        Caller::Local(_) => None,
        Caller::Remote(peer) => Some(peer.address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connection_from_before_contradicts_and_only_once() {
        let (forks, now) = (Forks::default(), Instant::now());
        assert!(forks.is_empty());
        forks.record([1; 32], None, now + Duration::from_secs(5));
        assert_eq!(forks.take(&[2; 32], now), None, "another chip");
        assert_eq!(forks.take(&[1; 32], now + Duration::from_secs(6)), None, "a chip that was set back dials anew");
        assert!(forks.take(&[1; 32], now).is_some());
        assert_eq!(forks.take(&[1; 32], now), None);
    }

    #[test]
    fn contradictions_are_forgotten_in_time_and_bounded_in_number() {
        let (forks, now) = (Forks::default(), Instant::now());
        for number in 0..3000_u32 {
            let mut ek_sha256 = [0; 32];
            ek_sha256[..4].copy_from_slice(&number.to_be_bytes());
            forks.record(ek_sha256, None, now + Duration::from_millis(number.into()));
        }
        assert_eq!(forks.contradictions().len(), MAX_CONTRADICTIONS);
        forks.record([9; 32], None, now + MEMORY * 2);
        assert_eq!(forks.contradictions().len(), 1);
    }
}
