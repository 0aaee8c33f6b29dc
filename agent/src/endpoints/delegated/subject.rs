//! Whom a delegate asks for.

use ironroot_api::pb::types;
use ironroot_attest::workload::Peer;
use ironroot_attest::{Selector, SelectorSet};
use tonic::Status;

use super::delegates::Delegation;
use crate::endpoints::caller::Known;
use crate::endpoints::serving::Serving;

/// Most selectors that a delegate gives. A container in a cluster has some fifty.
const MAX_SELECTORS: usize = 512;

/// Selectors that count as attested, and the process that they were read from, if it was one.
pub(super) struct Subject {
    selectors: SelectorSet,
    process: Option<Peer>,
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
        if pid != 0 {
            let (process, selectors) = serving.attest_numbered(delegate, pid).await?;
            return Ok(Self { selectors, process: Some(process) });
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
            Some(process) if !process.still_alive() => {
                let text = format!("workload attestation failed: process {} has exited", process.pid());
                Err(Status::unavailable(text))
            }
            _ => Ok(()),
        }
    }
}
