//! What servers have shown of their issuance logs, kept: a server that forgets, or tells two agents different things, is told of it, and
//! people are.
//!
//! ```text
//!  sync ──► the newest signed head kept goes along; the answer has the server's ──► proven by the bundle ──► compared
//!           further: kept          another epoch, greater: the operator accepted an older state, or a new log: said once, kept
//!           step back, fork:       said once, in the status; what was kept stays as evidence, and goes along with each sync
//! ```
//! The agent goes on to serve and to sync: what it has is good, and it is the server that must stop, which looks at what is shown to it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironroot_api::issuance_head::{self, IssuanceHead};
use ironroot_shell::describe;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tracing::{debug, error, info, warn};

use crate::durable_file::{self, Writes};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "issuance-heads.json";
/// Servers whose heads are kept; those of one more are not looked at.
pub const MAX_SERVERS: usize = 8;
/// Longest file accepted, bytes.
const MAX_FILE_BYTES: usize = 64 * 1024;
/// Heads come with each change in a fleet: flash memory is written this often at most, but at once for what was found.
const WRITE_INTERVAL: Duration = Duration::from_secs(600);

/// What a shown head is beside the one that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is further, or the first.
    Further,
    /// It is the same.
    Same,
    /// The log was begun anew, or goes on after an older state was accepted.
    BegunAnew,
    /// It has fewer records, or is of an epoch that was given up.
    StepBack,
    /// It has as many records, and others.
    Fork,
}

/// Compares a head with the one that was kept of the same server.
pub fn judge(kept: &IssuanceHead, shown: &IssuanceHead) -> Verdict {
    match (shown.epoch.cmp(&kept.epoch), shown.sequence.cmp(&kept.sequence)) {
        (std::cmp::Ordering::Greater, _) => Verdict::BegunAnew,
        (std::cmp::Ordering::Less, _) | (_, std::cmp::Ordering::Less) => Verdict::StepBack,
        (_, std::cmp::Ordering::Greater) => Verdict::Further,
        (_, std::cmp::Ordering::Equal) if shown.hash == kept.hash => Verdict::Same,
        (_, std::cmp::Ordering::Equal) => Verdict::Fork,
    }
}

/// A head with what proves it.
#[derive(Clone)]
struct Kept {
    head: IssuanceHead,
    encoded: Vec<u8>,
    /// A head that contradicts it, if one was shown last.
    contradicted: Option<(Verdict, IssuanceHead)>,
}

/// The furthest head of each server.
pub struct IssuanceHeads {
    file: Option<PathBuf>,
    kept: BTreeMap<String, Kept>,
    /// Of which server a head was shown last.
    last: String,
    /// Whether the newest refusal was said.
    told: Option<String>,
    unwritten: bool,
    /// Whether that is to be written at once.
    urgent: bool,
    written: Option<Instant>,
    writes: Writes,
}

/// The file.
#[derive(Default, Serialize, Deserialize)]
struct Stored {
    heads: Vec<String>,
}

impl IssuanceHeads {
    /// Those that were kept in this directory. What cannot be read is begun anew.
    pub fn open(directory: &Path) -> Self {
        let file = directory.join(FILE_NAME);
        let kept = match read(&file) {
            Ok(kept) => kept,
            Err(why) => {
                warn!(why, file = %file.display(), "heads of issuance logs that were kept are lost");
                BTreeMap::new()
            }
        };
        let last = kept.keys().next().cloned().unwrap_or_default();
        Self { kept, last, file: Some(file), ..Self::in_memory() }
    }

    /// None, and none is written.
    pub fn in_memory() -> Self {
        let (kept, last, writes) = (BTreeMap::new(), String::new(), Writes::default());
        Self { file: None, kept, last, told: None, unwritten: false, urgent: false, written: None, writes }
    }

    /// What goes along with a sync: the head that is kept of the server that answered last; empty: none, and one is asked for.
    pub fn to_show(&self) -> Vec<u8> {
        self.kept.get(&self.last).map(|kept| kept.encoded.clone()).unwrap_or_default()
    }

    /// What is kept, for the sealed cache: a disk that somebody puts back does not take it along.
    pub fn encoded(&self) -> Vec<Vec<u8>> {
        self.kept.values().map(|kept| kept.encoded.clone()).collect()
    }

    /// Takes up what the sealed cache had; of two the further counts.
    pub fn restore(&mut self, encoded: &[Vec<u8>]) {
        for encoded in encoded.iter().take(MAX_SERVERS) {
            let Ok(head) = issuance_head::read(encoded) else { continue };
            let known = self.kept.get(&head.server);
            let is_further =
                known.is_none_or(|known| matches!(judge(&known.head, &head), Verdict::Further | Verdict::BegunAnew));
            if is_further && (known.is_some() || self.kept.len() < MAX_SERVERS) {
                if known.is_some() {
                    // As after any stop: the file is written more rarely. Nor does an older file that somebody put back count.
                    debug!(server = head.server, "the sealed cache has a later head of the issuance log than the file");
                }
                self.last.clone_from(&head.server);
                self.kept.insert(head.server.clone(), Kept { head, encoded: encoded.clone(), contradicted: None });
                self.unwritten = true;
            }
        }
    }

    /// Takes in what a server has shown; what it is beside what was kept, unless it is refused. `authorities`: the bundle's. What is to be
    /// written then, [`write`](Self::write) does.
    pub fn take(&mut self, encoded: &[u8], trust_domain: &str, authorities: &[CertificateDer<'_>]) -> Option<Verdict> {
        let head = match issuance_head::verify(encoded, authorities) {
            Ok(head) if head.trust_domain == trust_domain => head,
            Ok(head) => return self.refuse(format!("it is of trust domain {:?}", head.trust_domain)),
            Err(why) => return self.refuse(describe(&why)),
        };
        self.told = None;
        self.last = head.server.clone();
        if let Some(kept) = self.kept.get_mut(&head.server) {
            let verdict = judge(&kept.head, &head);
            self.urgent |= kept.compare(verdict, head, encoded);
            self.unwritten |= verdict != Verdict::Same;
            return Some(verdict);
        }
        if self.kept.len() >= MAX_SERVERS {
            return self.refuse(format!("heads of {MAX_SERVERS} servers are kept already"));
        }
        let kept = Kept { head: head.clone(), encoded: encoded.to_owned(), contradicted: None };
        self.kept.insert(head.server, kept);
        (self.unwritten, self.urgent) = (true, true);
        Some(Verdict::Further)
    }

    fn refuse(&mut self, why: String) -> Option<Verdict> {
        if self.told.as_ref() != Some(&why) {
            warn!(why, "the head of its issuance log that the server shows is not taken");
            self.told = Some(why);
        }
        None
    }

    /// Writes what is not on the disk, if it is time, or `at_once`. A failure costs memory over a restart, no more.
    pub async fn write(&mut self, at_once: bool) {
        let Some(file) = self.file.as_ref().filter(|_| self.unwritten) else { return };
        if !(at_once || self.urgent) && self.written.is_some_and(|written| written.elapsed() < WRITE_INTERVAL) {
            return;
        }
        // A disk that does not take them is not tried at each turn.
        (self.written, self.urgent) = (Some(Instant::now()), false);
        let heads = self.kept.values().map(|kept| STANDARD.encode(&kept.encoded)).collect();
        let stored = serde_json::to_vec(&Stored { heads }).expect("texts are JSON");
        let path = file.clone();
        match self.writes.run(move || durable_file::replace(&path, &stored)).await {
            Ok(()) => self.unwritten = false,
            Err(error) => warn!(%error, file = %file.display(), "heads of issuance logs are not kept on the disk"),
        }
    }
}

impl Kept {
    /// Keeps the further one of the two; whether something was found that people must know.
    fn compare(&mut self, verdict: Verdict, shown: IssuanceHead, encoded: &[u8]) -> bool {
        match verdict {
            Verdict::Same => {}
            Verdict::Further => {
                if self.contradicted.take().is_some() {
                    info!("the server's issuance log goes beyond what this agent has seen of it again");
                }
                (self.head, self.encoded) = (shown, encoded.to_owned());
            }
            Verdict::BegunAnew => {
                warn!(
                    kept = self.head.sequence,
                    shown = shown.sequence,
                    epoch = shown.epoch,
                    "the server's issuance log was begun anew, or an older state of the server was accepted by its operator"
                );
                *self = Self { head: shown, encoded: encoded.to_owned(), contradicted: None };
                return true;
            }
            Verdict::StepBack | Verdict::Fork => {
                let is_new = self.contradicted.as_ref().is_none_or(|(before, _)| *before != verdict);
                if is_new {
                    error!(
                        kept = self.head.sequence,
                        kept_hash = self.head.hash,
                        shown = shown.sequence,
                        shown_hash = shown.hash,
                        "the server shows another history of what it issued than before ({verdict}): its state is older, or there are two; what is \
                         held goes on being served, and the server is told"
                    );
                }
                self.contradicted = Some((verdict, shown));
                return is_new;
            }
        }
        false
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Further => "further",
            Self::Same => "the same",
            Self::BegunAnew => "begun anew",
            Self::StepBack => "a step back",
            Self::Fork => "a fork",
        })
    }
}

/// For people: what is kept, and what speaks against it.
impl fmt::Display for IssuanceHeads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Kept { head, contradicted, .. }) = self.kept.get(&self.last) else { return Ok(()) };
        write!(f, "{} records of epoch {}, {}", head.sequence, head.epoch, head.hash)?;
        contradicted.as_ref().map_or(Ok(()), |(verdict, shown)| {
            write!(f, "; the server shows {verdict}: {} records, {}", shown.sequence, shown.hash)
        })
    }
}

fn read(file: &Path) -> Result<BTreeMap<String, Kept>, String> {
    let Some(bytes) = durable_file::read(file, MAX_FILE_BYTES).map_err(|error| error.to_string())? else {
        return Ok(BTreeMap::new());
    };
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|_| "no such JSON".to_owned())?;
    let mut kept = BTreeMap::new();
    for text in stored.heads.iter().take(MAX_SERVERS) {
        let encoded = STANDARD.decode(text).map_err(|_| "no base64".to_owned())?;
        let head = issuance_head::read(&encoded).map_err(|error| error.to_string())?;
        kept.insert(head.server.clone(), Kept { head, encoded, contradicted: None });
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable_file::slow_disk::with_a_slow_disk;

    fn head(epoch: u64, sequence: u64, hash: &str) -> IssuanceHead {
        let (trust_domain, server, hash) = ("td".to_owned(), String::new(), hash.to_owned());
        IssuanceHead { trust_domain, server, epoch, sequence, hash, at: 0 }
    }

    #[test]
    fn a_head_that_goes_back_or_is_another_one_is_told_from_one_that_goes_on() {
        let kept = head(5, 10, "a");
        for (shown, verdict) in [
            (head(5, 10, "a"), Verdict::Same),
            (head(5, 11, "b"), Verdict::Further),
            (head(5, 10, "b"), Verdict::Fork),
            (head(5, 9, "a"), Verdict::StepBack),
            (head(4, 99, "a"), Verdict::StepBack),
            (head(6, 1, "b"), Verdict::BegunAnew),
        ] {
            assert_eq!(judge(&kept, &shown), verdict, "{shown:?}");
        }
    }

    #[test]
    fn of_the_file_and_the_sealed_cache_the_further_head_counts() {
        let encoded = |sequence| {
            let statement = serde_json::to_vec(&head(5, sequence, "a")).expect("JSON");
            issuance_head::encode(statement, vec![1], vec![vec![2]]).expect("short")
        };
        let (mut heads, mut newer) = (IssuanceHeads::in_memory(), IssuanceHeads::in_memory());
        newer.restore(&[encoded(9)]);
        heads.restore(&[encoded(7)]);
        heads.restore(&newer.encoded());
        assert_eq!((heads.encoded(), heads.to_show()), (vec![encoded(9)], encoded(9)));
        heads.restore(&[encoded(8), b"rubbish".to_vec()]);
        assert_eq!(heads.encoded(), [encoded(9)], "an older one is no news");
    }

    #[test]
    fn a_slow_disk_keeps_nobody_else_waiting_while_heads_are_written() {
        let directory = tempfile::tempdir().expect("directory");
        with_a_slow_disk(|disk| async {
            let mut heads = IssuanceHeads::open(directory.path());
            let statement = serde_json::to_vec(&head(5, 9, "a")).expect("JSON");
            heads.restore(&[issuance_head::encode(statement, vec![1], vec![vec![2]]).expect("short")]);
            disk.is_waited_for(heads.write(false)).await;
            assert_eq!(IssuanceHeads::open(directory.path()).encoded(), heads.encoded(), "it is there afterwards");
        });
    }

    #[test]
    fn what_was_kept_stays_as_evidence_until_the_log_goes_on_or_is_begun_anew() {
        let mut kept = Kept { head: head(5, 10, "a"), encoded: vec![1], contradicted: None };
        assert!(kept.compare(Verdict::StepBack, head(5, 9, "a"), &[2]), "found");
        assert!(!kept.compare(Verdict::StepBack, head(5, 9, "a"), &[2]), "said once");
        assert!(kept.compare(Verdict::Fork, head(5, 10, "b"), &[2]));
        assert_eq!((kept.head.sequence, kept.encoded.as_slice()), (10, [1].as_slice()));
        assert!(kept.compare(Verdict::BegunAnew, head(6, 1, "b"), &[3]));
        assert_eq!((kept.encoded.as_slice(), kept.contradicted), ([3].as_slice(), None));
    }
}
