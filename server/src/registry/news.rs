//! What wakes those who follow what one agent may serve.

use tokio::sync::watch;

use super::Registry;
use ironroot_api::SpiffeId;

/// Tells that what an agent may serve, or whether it is one still, must be looked at again.
#[derive(Debug)]
pub struct News {
    /// Of entries and devices: anybody's view may be another.
    everybody: watch::Receiver<i64>,
    /// Of the agent's own row; none if there is no such agent.
    own: Option<watch::Receiver<()>>,
}

impl Registry {
    /// The news of that agent, from now on.
    pub fn news_of(&self, agent: &SpiffeId) -> News {
        let own = self.shared.read().agents.slot(agent).map(|slot| slot.end());
        News { everybody: self.changes(), own }
    }
}

impl News {
    /// The revision of the change log that entries and devices were followed to.
    pub fn revision(&self) -> i64 {
        *self.everybody.borrow()
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
            Ok(()) = self.everybody.changed() => {}
            () = own => {}
        }
    }
}
