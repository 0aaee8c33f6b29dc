//! What is taken over, decided before anything is written. Pure but for the two files that it reads.

use std::path::{Path, PathBuf};

use ironroot_api::TrustDomain;

use super::authorities::{self, Authorities, Keys};
use super::error::TakeoverError;
use super::federation::Federation;
use super::report::{KeysTaken, Report, What};
use super::tokens::Token;
use super::{agents, entries, keys, tokens};
use crate::ca::{Journal, ServerName};
use crate::facts::agent::AgentRecord;
use crate::facts::entry::RegistrationEntry;
use crate::facts::tier::TierAuthority;
use crate::keys::SoftwareKey;
use crate::store::Location;
use crate::store::spire::{self, SpireFacts};

/// What of the configuration decides what can be taken over.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whose server this is.
    pub trust_domain: TrustDomain,
    /// What it is called.
    pub server: ServerName,
    /// Whether entries may name a program and nobody who runs it.
    pub allow_executable_only: bool,
    /// How devices may attest here.
    pub attestors: Vec<String>,
    /// Where SPIRE's keys go.
    pub keys: KeyPlace,
}

/// Where SPIRE's keys go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// Into the file of KeyManager "disk".
    File(PathBuf),
    /// Nowhere: the configuration has none.
    Nowhere,
}

/// All that is taken over.
#[derive(Debug)]
pub struct Takeover {
    pub(super) entries: Vec<RegistrationEntry>,
    pub(super) federation: Federation,
    pub(super) agents: Vec<AgentRecord>,
    pub(super) tokens: Vec<Token>,
    pub(super) journal: Journal,
    /// Roots of the authority above the CA.
    pub(super) above: Vec<TierAuthority>,
    pub(super) server: ServerName,
    /// By the IDs that they have in either file, and that file.
    pub(super) keys: Option<(PathBuf, Vec<(String, SoftwareKey)>)>,
    pub(super) report: Report,
}

impl Takeover {
    /// Reads SPIRE's database and its key file, and decides. Blocks. `looks_only`: also while SPIRE's server runs.
    pub fn read(
        database: &Location,
        key_file: &Path,
        rules: &Rules,
        looks_only: bool,
        now_unix: i64,
    ) -> Result<Self, TakeoverError> {
        let read = spire::read(database, !looks_only);
        let facts = read.map_err(|error| TakeoverError::Spire { database: database.to_string(), error })?;
        let keys = match &rules.keys {
            KeyPlace::Nowhere => None,
            KeyPlace::File(own) if is_same_file(own, key_file) => return Err(TakeoverError::SpiresKeyFile),
            KeyPlace::File(_) => Some(keys::read(key_file)?),
        };
        let mut takeover = Self::plan(facts, keys, rules, now_unix)?;
        takeover.report.dry_run = looks_only;
        Ok(takeover)
    }

    /// Decides.
    pub(super) fn plan(facts: SpireFacts, keys: Keys, rules: &Rules, now_unix: i64) -> Result<Self, TakeoverError> {
        let mut report = Report {
            spire_version: facts.code_version,
            schema_version: facts.version,
            trust_domain: rules.trust_domain.to_string(),
            ..Report::default()
        };
        let Authorities { sequence_number, inherited, above, key_ids } =
            authorities::inherited(&facts.bundles, &facts.journals, &keys, rules, now_unix, &mut report)?;
        let journal = Journal::inherit(&rules.trust_domain, &rules.server, sequence_number, inherited)?;
        let federation = Federation::taken(&facts.bundles, &facts.relationships, rules, &mut report);
        let entries = entries::taken(facts.entries, &federation.trust_domains(), rules, now_unix, &mut report);
        let agents = agents::taken(facts.agents, rules, now_unix, &mut report);
        let tokens = tokens::taken(facts.tokens, rules, now_unix, &mut report);
        report.entries = entries.len();
        report.agents = agents.len();
        report.banned_agents = agents.iter().filter(|agent| agent.banned).count();
        report.join_tokens = tokens.len();
        let keys = place_keys(keys, key_ids, &rules.keys, &mut report);
        let server = rules.server.clone();
        Ok(Self { entries, federation, agents, tokens, journal, above, server, keys, report })
    }

    /// What is taken over, and what is not.
    pub fn report(&self) -> &Report {
        &self.report
    }
}

/// Those that sign go into the file; of each other the report says so.
fn place_keys(
    keys: Keys,
    key_ids: Vec<String>,
    place: &KeyPlace,
    report: &mut Report,
) -> Option<(PathBuf, Vec<(String, SoftwareKey)>)> {
    let (KeyPlace::File(path), Some(keys)) = (place, keys) else { return None };
    let (taken, left): (Vec<_>, Vec<_>) = keys.into_iter().partition(|(id, _)| key_ids.contains(id));
    for (id, _) in left {
        report.leave(What::Key, id, "it is of no authority that signs now or next");
    }
    let ids = taken.iter().map(|(id, _)| id.clone()).collect();
    report.keys = KeysTaken::Imported { path: path.display().to_string(), ids };
    Some((path.clone(), taken))
}

/// Whether both names lead to one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}
