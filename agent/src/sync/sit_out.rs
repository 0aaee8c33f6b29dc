//! While another server bans the agent: nothing of this one's is served or kept either, and it is not asked for more.

use std::time::{Duration, Instant};

use ironroot_shell::describe;
use tokio::sync::watch;
use tracing::{info, warn};

use super::standing::Standing;
use super::{Synchronizer, Wake};
use crate::sealed_cache::Changes;

/// Pause before what could not be wiped is wiped again: a chip that is away comes back.
const WIPE_PAUSE: Duration = Duration::from_secs(60);

impl Synchronizer {
    /// Withdraws and wipes everything of this server's; ends when no other server bans the agent any more, or with the process.
    pub(super) async fn sit_out(&mut self, shutdown: &mut watch::Receiver<bool>) -> Wake {
        let (server, bans, number) = (self.parts.server.address(), self.parts.bans.clone(), self.parts.number);
        warn!(server, "another server bans this agent: what is of this one is withdrawn and wiped too");
        self.hang_up();
        //= FLT-A29 agent faults: "everything is withdrawn and wiped, of all servers"
        self.standing.ban();
        self.parts.shown.hide();
        self.parts.local_tokens.send_replace(None);
        self.ledger.clear();
        self.changes = Changes::default();
        self.publish();
        loop {
            self.wipe_if_owed().await;
            self.report();
            let pause = if self.standing.owes_a_wipe() { WIPE_PAUSE } else { Duration::MAX };
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => return Wake::Shutdown,
                () = bans.lifted_by_others(number) => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        info!(server, "no server bans this agent any more: attesting anew");
        self.standing = Standing::New;
        (self.failures, self.next_poll) = (0, Instant::now());
        Wake::Poll
    }

    /// Takes up nothing that an earlier run left where a server banned the agent: what is kept is to be wiped.
    pub(super) fn is_banned_from_before(&mut self) -> bool {
        let (bans, number) = (&self.parts.bans, self.parts.number);
        if bans.are_by(number) {
            self.standing.ban();
        }
        bans.are_there()
    }

    /// Tried again until it succeeds: a chip that is away must not keep a ban from holding over a restart.
    pub(super) async fn wipe_if_owed(&mut self) {
        self.wipe_local_authority().await;
        if !self.standing.owes_a_wipe() {
            return;
        }
        match self.parts.memory.wipe().await {
            Ok(()) => self.standing.wiped(),
            Err(error) => tracing::error!(error = %describe(&error), "cannot wipe what is kept"),
        }
    }
}
