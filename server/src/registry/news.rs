//! What wakes those who follow what one agent may serve.

use tokio::sync::watch;

use super::concerns::Concern;
use super::{AuthorizedView, Registry};
use ironroot_api::SpiffeId;

/// Looks in a row whose parents were others each time: after so many, the next news decide.
const MOST_LOOKS: usize = 3;

/// Tells that what an agent may serve, or whether it is one still, must be looked at again.
#[derive(Debug)]
pub struct News {
    revision: watch::Receiver<i64>,
    /// Of devices and policies: anybody's view may be another.
    broad: watch::Receiver<()>,
    /// Of entries that are, or would be, the agent's.
    concern: Concern,
    /// Of the agent's own row; none if there is no such agent.
    own: Option<watch::Receiver<()>>,
}

impl Registry {
    /// What [`News::look`] does not see is news, from then on.
    pub fn news(&self) -> News {
        let concern = self.shared.concerns.join();
        News { revision: self.changes(), broad: self.shared.broad.subscribe(), concern, own: None }
    }
}

impl News {
    /// What the agent may serve now. Whatever of it changes from now on is news.
    pub fn look(&mut self, registry: &Registry, agent: &SpiffeId, now_unix: i64) -> AuthorizedView {
        self.broad.borrow_and_update();
        self.own = registry.shared.read().agents.slot(agent).map(|slot| slot.end());
        for _ in 1..MOST_LOOKS {
            let (view, reach) = registry.look(agent, now_unix);
            if !self.concern.follow(reach) {
                return view;
            }
        }
        registry.authorized_entries(agent, now_unix)
    }

    /// The revision of the change log that entries and devices were followed to.
    pub fn revision(&self) -> i64 {
        *self.revision.borrow()
    }

    /// Waits for some.
    pub async fn come(&mut self) {
        let own = async {
            match &mut self.own {
                // It ends with the row.
                Some(own) => drop(own.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok(()) = self.broad.changed() => {}
            () = self.concern.come() => {}
            () = own => {}
        }
    }
}
