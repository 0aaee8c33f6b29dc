//! Whom a delegate asks for.

use std::time::Duration;

use ironroot_api::pb::types;
use ironroot_attest::workload::{Peer, WorkloadRefusal};
use ironroot_attest::{Selector, SelectorSet};
use tonic::Status;

use super::delegates::Delegation;
use crate::endpoints::caller::Known;
use crate::endpoints::exit::ExitWatch;
use crate::endpoints::serving::{Attested, NEVER, Serving, attestation_failed};
use crate::identities::Identities;

/// Most selectors that a delegate gives. A container in a cluster has some fifty.
const MAX_SELECTORS: usize = 512;

const OTHER_NUMBERS: &str = "the delegate is in another PID namespace than the agent, where its numbers of processes name others: run it in \
                             the agent's, or give selectors";

/// See the module.
pub(super) enum Subject {
    /// Whoever has these, which count as attested.
    Selectors(SelectorSet),
    /// A process, and what is known of it.
    Process { process: Peer, exit: ExitWatch, attested: Attested },
}

impl Subject {
    /// Whom a request names: by selectors, or by the number of a process. The texts are SPIRE's.
    pub async fn named(
        _: &Delegation,
        serving: &Serving,
        delegate: &Known,
        selectors: &[types::Selector],
        pid: i32,
    ) -> Result<Self, Status> {
        if selectors.is_empty() == (pid == 0) {
            let text = "must provide either selectors or non-zero PID, but not both";
            return Err(Status::invalid_argument(text));
        }
        if pid < 0 {
            return Err(Status::invalid_argument("a process is named by its number, which is above 0"));
        }
        if pid > 0 {
            if !serving.shares_numbers_with(delegate).await? {
                return Err(Status::invalid_argument(OTHER_NUMBERS));
            }
            let (process, attested) = serving.attest_numbered(delegate, pid).await?;
            expect_known(serving, &attested)?;
            let exit = ExitWatch::of(&process, "a delegate's")?;
            return Ok(Self::Process { process, exit, attested });
        }
        if selectors.len() > MAX_SELECTORS {
            return Err(Status::invalid_argument(format!("more than {MAX_SELECTORS} selectors")));
        }
        let parsed: Result<SelectorSet, _> = selectors.iter().map(|s| Selector::new(&s.r#type, &s.value)).collect();
        let unparsed = |_| Status::invalid_argument("could not parse provided selectors");
        parsed.map(Self::Selectors).map_err(unparsed)
    }

    /// All that is taken as true of it.
    pub fn selectors(&self) -> &SelectorSet {
        match self {
            Self::Selectors(selectors) => selectors,
            Self::Process { attested, .. } => &attested.selectors,
        }
    }

    /// Whether nothing more must be known of it to tell what of `identities` is its, and how long that is so.
    pub fn is_known_enough(&self, identities: &Identities) -> (bool, Duration) {
        match self {
            Self::Selectors(_) => (true, NEVER),
            Self::Process { attested, .. } => (attested.suffices_for(identities), attested.lasts()),
        }
    }

    /// Finds out who a process is now that was named: it may be in another group or container, or those who know may answer by now.
    pub async fn look_again(&mut self, serving: &Serving, delegate: &Known) -> Result<(), Status> {
        let Self::Process { process, attested, .. } = self else { return Ok(()) };
        *attested = serving.attest_referred_again(delegate, process).await?.map_err(|refusal| match refusal {
            WorkloadRefusal::Exited { .. } => exited(process),
            other => attestation_failed(&other),
        })?;
        expect_known(serving, attested)
    }

    /// Whether nothing speaks against handing its identities out: a process that was named must still run.
    pub fn check(&self) -> Result<(), Status> {
        match self {
            Self::Process { process, .. } if !process.still_alive() => Err(exited(process)),
            _ => Ok(()),
        }
    }

    /// Waits until the process that was named has ended, and says so; selectors never end.
    pub async fn ended(&self) -> Status {
        match self {
            Self::Process { process, exit, .. } => {
                exit.ended().await;
                exited(process)
            }
            Self::Selectors(_) => std::future::pending().await,
        }
    }
}

/// A process that may have an entry, and of which somebody could not be asked, has not been told to have none.
fn expect_known(serving: &Serving, attested: &Attested) -> Result<(), Status> {
    if serving.published().all_entries_for(&attested.selectors).is_empty() { attested.expect_asked() } else { Ok(()) }
}

fn exited(process: &Peer) -> Status {
    Status::unavailable(format!("workload attestation failed: process {} has exited", process.pid()))
}
