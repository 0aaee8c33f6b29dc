//! What a restore did, or would do.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use ironroot_api::utc;
use serde::Serialize;

use super::carried::{Authorities, Carried};
use super::manifest::{Manifest, PartName};
use super::origin::Origin;
use crate::store::Summary;

/// Roots and IDs that are named in one line.
const MAX_SHOWN: usize = 20;

/// What a restore did, or would do.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreReport {
    /// Whether it was only looked at.
    pub dry_run: bool,
    /// Whether the file is sealed.
    pub sealed: bool,
    /// What is in it.
    pub backup: Manifest,
    /// Whose it is, as far as it can be told.
    pub origin: Origin,
    /// What is in the data store's place now, or was; none: nothing, or nothing that can be read.
    pub replaced: Option<Summary>,
    /// Where that is kept; none on a dry run, and where there was nothing.
    pub kept_as: Option<PathBuf>,
    /// What of it goes on; none on a dry run.
    pub carried: Option<Carried>,
}

/// For people.
impl fmt::Display for RestoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.dry_run { "Would restore" } else { "Restored" };
        let Manifest { made_by, made_at, trust_domain, datastore, .. } = &self.backup;
        writeln!(
            f,
            "{verb} the backup of {}, trust domain {trust_domain}, made by ironroot-server {made_by}:",
            utc(*made_at)
        )?;
        writeln!(f, "  data store at {datastore}")?;
        if self.backup.part(PartName::Keys).is_some() {
            writeln!(f, "  key file")?;
        }
        write!(f, "{}", self.origin)?;
        match &self.replaced {
            Some(replaced) => writeln!(f, "In the place of {replaced}.")?,
            None => writeln!(f, "There is no data store in its place that can be read.")?,
        }
        if let Some(kept) = &self.kept_as {
            writeln!(f, "What was there is kept as {}.", kept.display())?;
        }
        match &self.carried {
            Some(carried) => {
                write!(f, "{carried}")?;
                writeln!(
                    f,
                    "Nothing is issued until you say so, as this user, once the server runs or before: ironroot-server restore accept -config FILE"
                )
            }
            None => writeln!(
                f,
                "Bans and CAs that are newer here would stay; every join token of the backup would be burnt; the database here would be kept aside."
            ),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for root in &self.roots {
            let known = match (self.roots_here.is_empty(), self.roots_here.contains(root)) {
                (true, _) => "",
                (false, true) => ", which is here too",
                (false, false) => ", which is not here",
            };
            writeln!(f, "  root with SHA-256 {root}{known}")?;
        }
        if self.is_anothers() {
            let here = in_words(&self.roots_here);
            writeln!(f, "ATTENTION: it is another server's backup. The roots here ({here}) are none of its own.")?;
        }
        if !self.new_administrators.is_empty() {
            let ids = in_words(&self.new_administrators);
            writeln!(f, "ATTENTION: administrators by entries of the backup, and not by those here: {ids}")?;
        }
        Ok(())
    }
}

/// A few of them.
pub(super) fn in_words(texts: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = texts.iter().take(MAX_SHOWN).map(String::as_str).collect();
    let more = texts.len().saturating_sub(MAX_SHOWN);
    let end = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{end}", shown.join(", "))
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (banned, what) in [(&self.banned_agents, "agents"), (&self.banned_devices, "devices")] {
            if !banned.is_empty() {
                writeln!(f, "Banned since the backup, and banned still ({what}): {}", banned.join(", "))?;
            }
        }
        match self.authorities {
            Authorities::OfHere => writeln!(f, "The CA that was here goes on: it is newer than the backup's.")?,
            Authorities::OfBackup => writeln!(f, "The CA is the backup's.")?,
        }
        writeln!(f, "Join tokens burnt: {}.", self.burnt_join_tokens)?;
        self.not_carried
            .as_ref()
            .map_or(Ok(()), |why| writeln!(f, "Bans since the backup are not known ({why}): give them again."))
    }
}
