//! Processes that a caller refers to by their numbers, looked at in the caller's turns.

use ironroot_attest::workload::{Peer, WorkloadRefusal};
use tonic::Status;

use super::{Attested, Serving};
use crate::endpoints::caller::Known;

/// A process that was referred to, and what is known of it; or why nothing is.
type Referred = Result<(Peer, Attested), WorkloadRefusal>;

impl Serving {
    /// Whether numbers of processes mean to the caller what they mean to the agent.
    pub async fn shares_numbers_with(&self, asking: &Known) -> Result<bool, Status> {
        self.in_turn(&asking.peer, |attestor, peer| attestor.shares_numbers_with(peer)).await
    }

    /// Finds out whose process has the number `pid` now. The outer error is the caller's.
    pub async fn attest_referred(&self, asking: &Known, pid: i32) -> Result<Referred, Status> {
        let demand = self.published().demand().clone();
        let heeded = demand.clone();
        let looked = self.in_turn(&asking.peer, move |attestor, _| Ok(attestor.attest_numbered(pid, &heeded))).await?;
        Ok(looked.map(|(process, found)| {
            let attested = self.noted(&process, found, demand);
            (process, attested)
        }))
    }

    /// The same of a process that was found before, as it is now.
    pub async fn attest_referred_again(
        &self,
        asking: &Known,
        process: &Peer,
    ) -> Result<Result<Attested, WorkloadRefusal>, Status> {
        let demand = self.published().demand().clone();
        let (heeded, named) = (demand.clone(), process.clone());
        let looked = self.in_turn(&asking.peer, move |attestor, _| Ok(attestor.attest_named(&named, &heeded))).await?;
        Ok(looked.map(|found| self.noted(process, found, demand)))
    }
}
