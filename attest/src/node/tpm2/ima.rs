//! What a quote says of the files that were measured: where their list has to lead to.

use super::{AdmittedEk, EventLogPolicy, PcrHash, PcrSelection};
use crate::ima::{Aggregate, BOOTED, PCR};
use crate::node::Refusal;

/// What became of the list of measured files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImaState {
    /// The server does not ask for it.
    NotAsked,
    /// The device has none, or an agent that sends none.
    NotSent,
    /// It has one. What the list must lead to was quoted.
    Quoted(Box<ImaQuote>),
}

/// The quoted registers that a list is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImaQuote {
    /// The bank.
    pub bank: PcrHash,
    /// PCR 10.
    pub register: Vec<u8>,
    /// PCRs 0 to 9.
    pub aggregate: Aggregate,
}

impl AdmittedEk {
    /// Whether the list of measured files is asked for: an agent that did not say that it has one may not know the question.
    pub(super) fn asks_for_ima(&self, policy: EventLogPolicy) -> Result<bool, Refusal> {
        match policy {
            EventLogPolicy::Required if !self.has_ima_log => Err(Refusal::NoImaLog),
            EventLogPolicy::Ignored => Ok(false),
            EventLogPolicy::Lenient | EventLogPolicy::Verified | EventLogPolicy::Required => Ok(self.has_ima_log),
        }
    }
}

/// `pcrs`, and those that a list is held against.
pub(super) fn with_those_of_ima(pcrs: PcrSelection) -> PcrSelection {
    let all = pcrs.indices().chain(BOOTED).chain([PCR]);
    PcrSelection::from_indices(all).unwrap_or(pcrs)
}

/// What the quote of these registers of `bank` says of the list, if one was asked for.
pub(super) fn judge(policy: EventLogPolicy, is_asked: bool, bank: PcrHash, quoted: &[(u8, Vec<u8>)]) -> ImaState {
    if policy == EventLogPolicy::Ignored {
        return ImaState::NotAsked;
    }
    let register = quoted.iter().find(|(index, _)| *index == PCR).map(|(_, value)| value.clone());
    match register.zip(Aggregate::of(bank, quoted)).filter(|_| is_asked) {
        Some((register, aggregate)) => ImaState::Quoted(Box::new(ImaQuote { bank, register, aggregate })),
        None => ImaState::NotSent,
    }
}
