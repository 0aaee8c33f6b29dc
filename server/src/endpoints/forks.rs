//! Evidence that one chip runs twice: its counters went back in an attestation that it proved, and a connection that its agent
//! had opened before still asks. A chip that was only set back or cleared has no such connection left, since an agent that is refused
//! hangs up: one of the two is a copy (a cloned virtual TPM), and nobody can say which. Both are banned until an operator decides.
//!
//! A copy that never attests works with the copied certificate: it is told, not banned, when both ask in turns (`turns`).
//!
//! Addresses are told, not judged: devices move, and many share one.

mod turns;

use ironroot_api::SpiffeId;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::permission_denied;
use tokio::time::Instant;
use tonic::Status;

use super::{ServerState, device_status};
use crate::devices::{ContradictedChip, ForkProof};
use crate::facts::device::Sighting;
use crate::node_attestation::AttestedNode;
use crate::rights::{AuthenticatedAgent, Caller, ShownCertificate};
use ironroot_shell::logging::in_moderation;
use ironroot_text::hex::hex;
use turns::{Call, InCommon, Told, Turns};

/// What the log says, in moderation.
const NOT_KEPT: &str = "a chip's contradiction is not kept";

/// Who used which connection and which certificate last.
#[derive(Debug, Default)]
pub struct Forks {
    turns: Turns,
}

impl ServerState {
    /// Remembers of a proven chip that its counters went back.
    pub(super) async fn note_contradiction(&self, caller: &Caller, chip: &ContradictedChip) {
        let device = hex(chip.ek_sha256());
        match self.devices.note_contradiction(chip, address_of(caller), self.now_unix()).await {
            Ok(()) => self.audit.done(caller, "AttestAgent", format_args!("device {device} contradicted itself")),
            Err(error) => {
                if let Some(pass) = in_moderation(NOT_KEPT) {
                    tracing::error!(
                        device,
                        error = &error as &dyn std::error::Error,
                        suppressed = pass.suppressed,
                        "{NOT_KEPT}"
                    );
                }
            }
        }
    }

    /// Refuses an agent on a connection that was opened before its chip contradicted itself elsewhere, and bans device and
    /// agents: two chips answer to one name.
    pub(super) async fn refuse_fork(&self, agent: &AuthenticatedAgent, opened: Instant) -> Result<(), Status> {
        self.tell_turns(agent.certificate(), opened, true);
        if !self.devices.suspects_any() {
            return Ok(());
        }
        let Some(device) = self.registry.agent(agent.id()).and_then(|record| record.ek_sha256) else { return Ok(()) };
        let here = self.sighting(agent.caller(), "asked over a connection that it had opened before that");
        match self.devices.fork_by_connection(&device, opened, here) {
            Some(proof) => Err(self.ban_fork(agent.caller(), device, agent.id(), proof).await),
            None => Ok(()),
        }
    }

    /// Refuses a chip whose clock is further ahead than that of its last contradiction can be by now, and bans as above. This
    /// holds over restarts of the server, when all connections are new.
    pub(super) async fn refuse_forked_clock(&self, node: &AttestedNode, caller: &Caller) -> Result<(), Status> {
        let Some(device) = node.device() else { return Ok(()) };
        let here = self.sighting(caller, "proved the chip, with a clock that the other cannot have reached");
        match self.devices.fork_by_clock(device, here, self.now_unix()) {
            Some(proof) => Err(self.ban_fork(caller, device.ek_sha256(), node.id(), proof).await),
            None => Ok(()),
        }
    }

    fn sighting(&self, caller: &Caller, what: &str) -> Sighting {
        Sighting { at: self.now_unix(), address: address_of(caller), what: what.into() }
    }

    /// Bans and alarms, both even if the caller hangs up. What both who answer to the name are told.
    async fn ban_fork(&self, caller: &Caller, device: [u8; 32], agent: &SpiffeId, proof: ForkProof) -> Status {
        let (devices, agent, now_unix) = (self.devices.clone(), agent.clone(), self.now_unix());
        let (audit, caller) = (self.audit.clone(), caller.clone());
        let ban = async move {
            let banned = devices.ban_copied(&proof, now_unix).await.map_err(device_status);
            if let Ok(banned) = &banned {
                audit.banned(&caller, &device, &banned.agents);
            }
            alarm(device, &agent, &proof, banned.err())
        };
        self.unbroken.run(ban).await.unwrap_or_else(|failed| failed)
    }

    /// Says that one identity is used in turns by two. `is_current`: whether the certificate shown is the agent's own now.
    pub(super) fn tell_turns(&self, shown: &ShownCertificate, opened: Instant, is_current: bool) {
        let Caller::Remote(peer) = shown.caller() else { return };
        let (address, dialled) = (peer.address, peer.dialled);
        let call = Call { opened, address, dialled, serial: shown.serial(), is_current };
        let Some(Told { other, shared }) = self.forks.turns.note(shown.id(), call, Instant::now()) else { return };
        let what = match shared {
            InCommon::Certificate => "one certificate is used in turns over two connections",
            InCommon::Identity => "certificates of one agent that replace each other are used in turns",
        };
        tracing::warn!(
            spiffe_id = %shown.id(), %address, other_address = %other,
            "{what}: a copy of its key or chip may be at work, or two agents with one identity. See which of the two is right; \
             ironroot-server agent ban ends both"
        );
    }
}

/// Says that a chip was copied, and whether it could be banned. What its agents are told.
fn alarm(device: [u8; 32], agent: &SpiffeId, proof: &ForkProof, not_banned: Option<Status>) -> Status {
    let [other, here] = proof.sightings();
    tracing::error!(
        device = hex(&device), spiffe_id = %agent, address = %here.address, other_address = %other.address,
        not_banned = not_banned.as_ref().map(Status::message),
        "a chip runs twice: it was copied. Both are banned. Find out which is right (ironroot-server device show), then: \
         ironroot-server device delete, agent evict, and device import"
    );
    not_banned.unwrap_or_else(|| permission_denied(Reason::AgentBanned, "agent is banned: its chip runs twice"))
}

/// With port, so that devices behind one address can be told apart there.
fn address_of(caller: &Caller) -> String {
    match caller {
        Caller::Local(_) => "the admin socket".into(),
        Caller::Remote(peer) => peer.address.to_string(),
    }
}
