//! Whom a delegate asks for.

use ironroot_api::pb::types;
use ironroot_attest::workload::Peer;
use ironroot_attest::{Selector, SelectorSet};
use tonic::Status;

use super::delegates::Delegation;
use crate::endpoints::caller::Known;
use crate::endpoints::exit::ExitWatch;
use crate::endpoints::serving::Serving;

/// Most selectors that a delegate gives. A container in a cluster has some fifty.
const MAX_SELECTORS: usize = 512;

const OTHER_NUMBERS: &str = "the delegate is in another PID namespace than the agent, where its numbers of processes name others: run it in \
                             the agent's, or give selectors";

/// Selectors that count as attested, and the process that they were read from, if it was one.
pub(super) struct Subject {
    selectors: SelectorSet,
    process: Option<(Peer, ExitWatch)>,
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
            let selectors = SelectorSet::clone(&attested.selectors);
            if serving.published().all_entries_for(&selectors).is_empty() {
                attested.expect_asked()?;
            }
            let exit = ExitWatch::of(&process, "a delegate's")?;
            return Ok(Self { selectors, process: Some((process, exit)) });
        }
        if selectors.len() > MAX_SELECTORS {
            return Err(Status::invalid_argument(format!("more than {MAX_SELECTORS} selectors")));
        }
        let parsed: Result<SelectorSet, _> = selectors.iter().map(|s| Selector::new(&s.r#type, &s.value)).collect();
        let unparsed = |_| Status::invalid_argument("could not parse provided selectors");
        Ok(Self { selectors: parsed.map_err(unparsed)?, process: None })
    }

    /// All that is taken as true of it.
    pub fn selectors(&self) -> &SelectorSet {
        &self.selectors
    }

    /// Whether nothing speaks against handing its identities out: a process that was named must still run.
    pub fn check(&self) -> Result<(), Status> {
        match &self.process {
            Some((process, _)) if !process.still_alive() => Err(exited(process)),
            _ => Ok(()),
        }
    }

    /// Waits until the process that was named has ended, and says so; selectors never end.
    pub async fn ended(&self) -> Status {
        match &self.process {
            Some((process, exit)) => {
                exit.ended().await;
                exited(process)
            }
            None => std::future::pending().await,
        }
    }
}

fn exited(process: &Peer) -> Status {
    Status::unavailable(format!("workload attestation failed: process {} has exited", process.pid()))
}
