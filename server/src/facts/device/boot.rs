//! What a device proved of a boot: kept, held against policies, and compared with the next one. Stored as JSON.

mod changes;
mod digest;

use std::collections::BTreeMap;

use ironroot_api::pb::device as pb;
use ironroot_attest::event_log::SecureBoot;
use ironroot_attest::node::tpm2::{BootLog, BootState, PcrHash};
use ironroot_shell::command_line::describe;
use serde::{Deserialize, Serialize};

pub use digest::PcrValue;

use super::ImaFacts;

/// Boot states kept of a device, the newest ones. Each takes one to two kB of the database; a state that comes again in the next
/// attestation is the same one.
pub const MAX_BOOTS: usize = 16;

/// The registers that a device quoted, and what the log that led to them says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFacts {
    /// The bank.
    pub bank: PcrHash,
    /// Its registers; none where the server quotes none.
    pub pcrs: BTreeMap<u8, PcrValue>,
    /// Secure Boot, if a log proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<SecureBootFacts>,
    /// The kernel's command line, as the log tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// Why there is nothing of a log, or nothing of Secure Boot in it; empty if there is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub missing: String,
    /// The files that it has measured since, if a list proves them. They are of this boot, and do not make it another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ima: Option<ImaFacts>,
    /// Why there is no list; empty if there is, or nobody asks for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ima_missing: String,
}

/// Secure Boot as firmware measured it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecureBootFacts {
    /// Whether it was on.
    pub enabled: bool,
    /// Digests of its variables, by their names in UEFI: PK, KEK, db, dbx.
    pub variables: BTreeMap<String, PcrValue>,
    /// Whether firmware said that devices could write into memory.
    #[serde(default)]
    pub dma_unprotected: bool,
}

/// A boot state, and when it was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// For the first time since it was another one, UNIX seconds.
    pub first_at: i64,
    /// For the last time.
    pub last_at: i64,
    /// What was proven.
    pub facts: BootFacts,
}

impl BootFacts {
    /// What an attestation proved.
    pub fn of(state: &BootState) -> Self {
        let missing = match &state.log {
            BootLog::NotAsked => "the server asks for no boot log".to_owned(),
            BootLog::NotSent => "the device sent no boot log".to_owned(),
            BootLog::Unusable(error) => format!("the boot log does not count: {error}"),
            BootLog::Proven(log) => log
                .secure_boot
                .as_ref()
                .err()
                .map(|error| format!("Secure Boot is not told: {}", describe(error)))
                .unwrap_or_default(),
        };
        let command_line = match &state.log {
            BootLog::Proven(log) => log.command_line.clone(),
            BootLog::NotAsked | BootLog::NotSent | BootLog::Unusable(_) => None,
        };
        Self {
            bank: state.bank,
            pcrs: state.pcrs.iter().map(|(index, value)| (*index, PcrValue(value.clone()))).collect(),
            secure_boot: state.secure_boot().map(SecureBootFacts::of),
            command_line,
            missing,
            ima: None,
            ima_missing: String::new(),
        }
    }

    /// Whether it is the same boot state, whatever was measured since.
    pub fn is_same_state(&self, other: &Self) -> bool {
        let state = |facts: &Self| Self { ima: None, ima_missing: String::new(), ..facts.clone() };
        state(self) == state(other)
    }

    fn ima_to_pb(&self) -> Option<pb::MeasuredFiles> {
        let missing = || pb::MeasuredFiles { missing: self.ima_missing.clone(), ..pb::MeasuredFiles::default() };
        let is_missing = !self.ima_missing.is_empty();
        self.ima.as_ref().map(ImaFacts::to_pb).or_else(|| is_missing.then(missing))
    }

    /// What is another since `before`, a sentence each, the lowest register first.
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        changes::between(before, self)
    }
}

impl SecureBootFacts {
    fn of(state: &SecureBoot) -> Self {
        let variable = |(variable, digest): &(_, Vec<u8>)| (name_of(*variable), PcrValue(digest.clone()));
        Self {
            enabled: state.enabled,
            variables: state.variables.iter().map(variable).collect(),
            dma_unprotected: state.dma_unprotected,
        }
    }
}

fn name_of(variable: ironroot_attest::event_log::SecureBootVariable) -> String {
    variable.name().to_owned()
}

/// The wire form of boots, the newest first, each with what changed since the one before it.
pub fn boots_to_pb(boots: &[Boot]) -> Vec<pb::BootState> {
    let befores = boots.iter().skip(1).map(Some).chain([None]);
    boots.iter().zip(befores).map(|(boot, before)| boot.to_pb(before)).collect()
}

impl Boot {
    fn to_pb(&self, before: Option<&Self>) -> pb::BootState {
        let facts = &self.facts;
        let secure_boot = |state: &SecureBootFacts| pb::SecureBoot {
            enabled: state.enabled,
            variables: state.variables.iter().map(|(name, digest)| (name.clone(), digest.to_string())).collect(),
            dma_unprotected: state.dma_unprotected,
        };
        pb::BootState {
            first_at: self.first_at,
            last_at: self.last_at,
            bank: facts.bank.to_string(),
            pcrs: facts.pcrs.iter().map(|(index, value)| (u32::from(*index), value.to_string())).collect(),
            secure_boot: facts.secure_boot.as_ref().map(secure_boot),
            command_line: facts.command_line.clone().unwrap_or_default(),
            missing: facts.missing.clone(),
            ima: facts.ima_to_pb(),
            changes: before.map(|before| facts.changes_since(&before.facts)).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
impl BootFacts {
    /// The SHA-256 bank with these registers, each filled with one byte; no log.
    pub(crate) fn example(pcrs: &[(u8, u8)]) -> Self {
        Self {
            bank: PcrHash::Sha256,
            pcrs: pcrs.iter().map(|(index, byte)| (*index, PcrValue(vec![*byte; 32]))).collect(),
            secure_boot: None,
            command_line: None,
            missing: String::new(),
            ima: None,
            ima_missing: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Databases hold this text.
    #[test]
    fn the_stored_form_of_a_boot_stays_as_it_is() {
        let variables = [("PK".to_owned(), PcrValue(vec![1; 2]))].into();
        let secure_boot = Some(SecureBootFacts { enabled: true, variables, dma_unprotected: false });
        let full = BootFacts {
            pcrs: [(0, PcrValue(vec![0xab; 2])), (7, PcrValue(vec![1, 2]))].into(),
            secure_boot,
            command_line: Some("quiet".into()),
            missing: "nothing".into(),
            ..BootFacts::example(&[])
        };
        let stored = concat!(
            r#"{"bank":"sha256","pcrs":{"0":"abab","7":"0102"},"secure_boot":{"enabled":true,"variables":{"PK":"0101"},"#,
            r#""dma_unprotected":false},"command_line":"quiet","missing":"nothing"}"#
        );
        for (facts, stored) in [(full, stored), (BootFacts::example(&[]), r#"{"bank":"sha256","pcrs":{}}"#)] {
            assert_eq!(serde_json::to_string(&facts).expect("JSON"), stored);
            assert_eq!(serde_json::from_str::<BootFacts>(stored).expect("a boot"), facts);
        }
    }

    #[test]
    fn each_boot_is_shown_with_what_changed_since_the_one_before_it() {
        let boot = |at, byte| Boot { first_at: at, last_at: at + 1, facts: BootFacts::example(&[(4, byte)]) };
        let shown = boots_to_pb(&[boot(30, 3), boot(20, 2), boot(10, 1)]);
        let changes: Vec<usize> = shown.iter().map(|boot| boot.changes.len()).collect();
        assert_eq!(changes, [1, 1, 0], "nothing is known of before the first");
        assert_eq!((shown[0].first_at, shown[0].last_at, shown[0].bank.as_str()), (30, 31, "sha256"));
        assert_eq!(shown[0].pcrs.get(&4).map(|value| value.len()), Some(64));
        assert!(boots_to_pb(&[]).is_empty());
    }
}
