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

use ironroot_api::SpiffeId;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::permission_denied;
use tokio::time::Instant;
use tonic::Status;

use super::ServerState;
use super::caller::{AuthenticatedAgent, Caller};
use super::{device_status, store_status};
use crate::devices::Contradiction;
use crate::facts::device::{Ban, BanReason, Sighting};
use crate::node_attestation::{AttestationError, AttestedNode};
use ironroot_text::hex::hex;
use turns::{Call, Told, Turns};

/// How long a suspicion is remembered: the longest that a connection of an agent lives.
const MEMORY: Duration = Duration::from_secs(31 * 60);
/// Suspicions remembered; each needs a chip that was proven. Past it the oldest is forgotten.
const MAX_SUSPICIONS: usize = 1024;

/// Chips whose counters went back, and when; and who used which connection last.
#[derive(Debug, Default)]
pub struct Forks {
    suspicions: Mutex<HashMap<[u8; 32], Suspicion>>,
    turns: Turns,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Suspicion {
    seen: Instant,
    sighting: Sighting,
}

impl Forks {
    /// The chip of that endorsement key was proven with counters older than those it had shown before.
    fn record(&self, ek_sha256: [u8; 32], sighting: Sighting, now: Instant) {
        let mut suspicions = self.suspicions();
        suspicions.retain(|_, s| now.saturating_duration_since(s.seen) < MEMORY);
        if suspicions.len() >= MAX_SUSPICIONS {
            let oldest = suspicions.iter().min_by_key(|(_, s)| s.seen).map(|(ek, _)| *ek);
            oldest.map(|ek| suspicions.remove(&ek));
        }
        suspicions.insert(ek_sha256, Suspicion { seen: now, sighting });
    }

    /// Whether any chip is under suspicion: the usual answer, for every call.
    fn is_empty(&self) -> bool {
        self.suspicions().is_empty()
    }

    /// Takes out what contradicts a connection of that chip's agent which was opened at `opened`.
    fn take(&self, ek_sha256: &[u8; 32], opened: Instant) -> Option<Suspicion> {
        let mut suspicions = self.suspicions();
        suspicions.get(ek_sha256).filter(|s| opened < s.seen)?;
        suspicions.remove(ek_sha256)
    }

    fn suspicions(&self) -> MutexGuard<'_, HashMap<[u8; 32], Suspicion>> {
        // Plain values: a panic leaves the map whole.
        self.suspicions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerState {
    /// Remembers a refusal that says of a proven chip that its counters went back.
    pub(super) async fn note_contradiction(
        &self,
        ek_sha256: Option<[u8; 32]>,
        caller: &Caller,
        error: &AttestationError,
    ) {
        let AttestationError::Refused(refusal) = error else { return };
        let (Some(ek_sha256), Some(clock)) = (ek_sha256, refusal.contradicting_clock()) else { return };
        let seen = Contradiction { at_unix: self.now_unix(), address: address_of(caller), clock };
        self.forks.record(ek_sha256, seen.sighting(), Instant::now());
        if let Err(error) = self.devices.note_contradiction(ek_sha256, seen).await {
            tracing::error!(
                device = hex(&ek_sha256),
                error = &error as &dyn std::error::Error,
                "a chip's contradiction is not kept: a restart of the server forgets it"
            );
        }
    }

    /// Refuses an agent on a connection that was opened before its chip contradicted itself elsewhere, and bans device and
    /// agents: two chips answer to one name.
    pub(super) async fn refuse_fork(&self, agent: &AuthenticatedAgent, opened: Instant) -> Result<(), Status> {
        self.tell_turns(agent, opened, true);
        if self.forks.is_empty() {
            return Ok(());
        }
        let device = self.registry.agent(agent.id()).and_then(|record| record.ek_sha256);
        let Some((device, suspicion)) = device.and_then(|ek| Some((ek, self.forks.take(&ek, opened)?))) else {
            return Ok(());
        };
        let here = self.sighting(agent.caller(), "asked over a connection that it had opened before that");
        Err(self.ban_fork(device, agent.id(), [suspicion.sighting, here]).await)
    }

    /// Refuses a chip whose clock is further ahead than that of its last contradiction can be by now, and bans as above. This
    /// holds over restarts of the server, when all connections are new.
    pub(super) async fn refuse_forked_clock(&self, node: &AttestedNode, caller: &Caller) -> Result<(), Status> {
        let Some(device) = node.device() else { return Ok(()) };
        let Some(contradiction) = self.devices.contradiction(&device.ek_sha256) else { return Ok(()) };
        if !contradiction.is_anothers(&device.clock, self.now_unix()) {
            return Ok(());
        }
        let here = self.sighting(caller, "proved the chip, with a clock that the other cannot have reached");
        Err(self.ban_fork(device.ek_sha256, node.id(), [contradiction.sighting(), here]).await)
    }

    fn sighting(&self, caller: &Caller, what: &str) -> Sighting {
        Sighting { at: self.now_unix(), address: address_of(caller), what: what.into() }
    }

    /// Bans and alarms. What both who answer to the name are told.
    async fn ban_fork(&self, device: [u8; 32], agent: &SpiffeId, sightings: [Sighting; 2]) -> Status {
        let [other, here] = sightings.clone();
        let ban = Ban { at: self.now_unix(), reason: BanReason::RunsTwice { sightings } };
        let banned = self.devices.ban(&device, ban).await.map_err(device_status);
        let banned = match banned {
            Ok(_) => self.registry.ban_agents_of_device(&device).await.map_err(store_status),
            Err(status) => Err(status),
        };
        let failure = banned.err();
        tracing::error!(
            device = hex(&device), spiffe_id = %agent, address = %here.address, other_address = %other.address,
            not_banned = failure.as_ref().map(Status::message),
            "a chip runs twice: it was copied. Both are banned. Find out which is right (ironroot-server device show), then: \
             ironroot-server device delete, agent evict, and device import"
        );
        failure.unwrap_or_else(|| permission_denied(Reason::AgentBanned, "agent is banned: its chip runs twice"))
    }
}

impl ServerState {
    /// Says that one identity is used in turns by two. `is_current`: whether the certificate shown is the agent's own now.
    pub(super) fn tell_turns(&self, agent: &AuthenticatedAgent, opened: Instant, is_current: bool) {
        let Caller::Remote(peer) = agent.caller() else { return };
        let (address, dialled) = (peer.address, peer.dialled);
        let call = Call { opened, address, dialled, serial: agent.serial(), is_current };
        let Some(Told { other, shared }) = self.forks.turns.note(agent.id(), call, Instant::now()) else { return };
        let what = match shared {
            turns::ServerState::Certificate => "one certificate is used in turns over two connections",
            turns::ServerState::Identity => "certificates of one agent that replace each other are used in turns",
        };
        tracing::warn!(
            spiffe_id = %agent.id(), %address, other_address = %other,
            "{what}: a copy of its key or chip may be at work, or two agents with one identity. See which of the two is right; \
             ironroot-server agent ban ends both"
        );
    }
}

fn address(caller: &Caller) -> Option<SocketAddr> {
    match caller {
        Caller::Local(_) => None,
        Caller::Remote(peer) => Some(peer.address),
    }
}

/// With port, so that devices behind one address can be told apart there.
fn address_of(caller: &Caller) -> String {
    address(caller).map_or_else(|| "the admin socket".into(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting() -> Sighting {
        Sighting { at: 0, address: String::new(), what: String::new() }
    }

    #[test]
    fn only_a_connection_from_before_contradicts_and_only_once() {
        let (forks, now) = (Forks::default(), Instant::now());
        assert!(forks.is_empty());
        forks.record([1; 32], sighting(), now + Duration::from_secs(5));
        assert_eq!(forks.take(&[2; 32], now), None, "another chip");
        assert_eq!(forks.take(&[1; 32], now + Duration::from_secs(6)), None, "a chip that was set back dials anew");
        assert!(forks.take(&[1; 32], now).is_some());
        assert_eq!(forks.take(&[1; 32], now), None);
    }

    #[test]
    fn suspicions_are_forgotten_in_time_and_bounded_in_number() {
        let (forks, now) = (Forks::default(), Instant::now());
        for number in 0..3000_u32 {
            let mut ek_sha256 = [0; 32];
            ek_sha256[..4].copy_from_slice(&number.to_be_bytes());
            forks.record(ek_sha256, sighting(), now + Duration::from_millis(number.into()));
        }
        assert_eq!(forks.suspicions().len(), MAX_SUSPICIONS);
        forks.record([9; 32], sighting(), now + MEMORY * 2);
        assert_eq!(forks.suspicions().len(), 1);
    }
}
