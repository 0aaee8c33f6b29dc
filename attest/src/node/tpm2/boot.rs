//! What a device has booted, as far as its quote proves it.

use super::{EventLogPolicy, PcrHash};
use crate::event_log::{EventLog, EventLogError, SecureBoot, SecureBootError};
use crate::node::Refusal;

/// The quoted registers, and what a log says made them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootState {
    /// The bank that was quoted.
    pub bank: PcrHash,
    /// Index and value of every quoted PCR, ascending.
    pub pcrs: Vec<(u8, Vec<u8>)>,
    /// What the log of the boot proves beside them.
    pub log: BootLog,
}

/// What became of the log of the boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootLog {
    /// The server does not ask for it, or quotes no register.
    NotAsked,
    /// The device has none, or an agent that sends none.
    NotSent,
    /// It cannot be compared with the quote, or does not fit it.
    Unusable(EventLogError),
    /// It leads to the quoted registers.
    Proven(Box<ProvenLog>),
}

/// What a log that leads to the quoted registers says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenLog {
    /// Secure Boot, or why it cannot be told.
    pub secure_boot: Result<SecureBoot, SecureBootError>,
    /// The kernel's command line, for people: that it was measured is proven, that it is the command line is the device's word.
    pub command_line: Option<String>,
}

impl BootState {
    /// Secure Boot, if the log proves whether it was on.
    pub fn secure_boot(&self) -> Option<&SecureBoot> {
        match &self.log {
            BootLog::Proven(proven) => proven.secure_boot.as_ref().ok(),
            BootLog::NotAsked | BootLog::NotSent | BootLog::Unusable(_) => None,
        }
    }
}

/// Compares `log` with the registers that were quoted: `bank`, and index and value of each.
pub(super) fn judge(
    policy: EventLogPolicy,
    log: Option<&[u8]>,
    bank: PcrHash,
    pcrs: &[(u8, Vec<u8>)],
) -> Result<BootLog, Refusal> {
    if policy == EventLogPolicy::Ignored || pcrs.is_empty() {
        return Ok(BootLog::NotAsked);
    }
    let Some(log) = log else {
        return if policy == EventLogPolicy::Required { Err(Refusal::NoEventLog) } else { Ok(BootLog::NotSent) };
    };
    match EventLog::parse(log).and_then(|log| log.verify(bank, pcrs)) {
        Ok(log) => Ok(BootLog::Proven(Box::new(ProvenLog {
            secure_boot: log.secure_boot(),
            command_line: log.command_line(),
        }))),
        // Old firmware with SHA-1 alone is silent of the quoted bank; that is no lie.
        Err(error @ EventLogError::OtherBank { .. }) if policy != EventLogPolicy::Required => {
            Ok(BootLog::Unusable(error))
        }
        Err(error) if policy == EventLogPolicy::Lenient => Ok(BootLog::Unusable(error)),
        //= TPM-43 TCG PC Client Platform Firmware Profile: "a log that leads to other registers than those quoted is refused"
        Err(error) => Err(Refusal::EventLog(error)),
    }
}
