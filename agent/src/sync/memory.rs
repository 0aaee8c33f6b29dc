//! What outlives the process: the sealed cache with a TPM, SPIRE's plain record without.

use std::path::{Path, PathBuf};
use std::time::Instant;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::agent_record::{AgentRecord, FILE_NAME, RecordError};
use crate::durable_file::{self, Writes};
use crate::sealed_cache::{self, CacheError, Changes, Debts, SealedCache, WritePlan, plan};

/// Why nothing could be kept.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The cache could not be sealed, written, or covered by the chip's counter.
    #[error("the sealed cache could not be written")]
    Cache(#[from] CacheError),
    /// The file in the data directory could not be replaced.
    #[error("the agent's record could not be written")]
    Record(#[from] RecordError),
}

/// Where that is kept which outlives the process.
pub enum Memory {
    /// Sealed to the TPM, with everything needed to serve without a server.
    Sealed(Box<SealedMemory>),
    /// A plain file in this directory: the agent's own certificate and bundle only.
    Plain {
        /// The data directory.
        directory: PathBuf,
        /// What the file says.
        kept: Option<Box<AgentRecord>>,
        /// What is done to it.
        writes: Writes,
    },
}

/// The sealed cache and when it was written.
pub struct SealedMemory {
    cache: SealedCache,
    debts: Debts,
    /// Whether the identities in the file are this run's, or were taken up by it.
    is_sound: bool,
}

/// One state to keep.
pub struct ToKeep {
    /// What the agent knows of itself: its certificate, the bundle, the time.
    pub record: AgentRecord,
    /// The encoded identities; a plain record has no use for them.
    pub identities: Zeroizing<Vec<u8>>,
}

impl Memory {
    /// Keeps in `cache`.
    pub fn sealed(cache: SealedCache) -> Self {
        Self::Sealed(Box::new(SealedMemory { cache, debts: Debts::default(), is_sound: false }))
    }

    /// Whether identities outlive the process too.
    pub fn is_sealed(&self) -> bool {
        matches!(self, Self::Sealed(_))
    }

    /// Whether there are identities that the next start would take up: a file, written or read by this run.
    pub fn has_identities(&self) -> bool {
        matches!(self, Self::Sealed(memory) if memory.is_sound && memory.cache.has_file())
    }

    /// Keeps in a plain file in `directory`.
    pub fn plain(directory: PathBuf) -> Self {
        Self::Plain { directory, kept: None, writes: Writes::default() }
    }

    /// What is to be done about `changes` now. With `flush` nothing waits: the process ends.
    pub fn plan(&self, changes: Changes, flush: bool) -> WritePlan {
        match self {
            Self::Sealed(memory) => {
                let must_not_be_lost = changes.must_not_be_lost || (flush && changes.any);
                plan(Changes { must_not_be_lost, ..changes }, memory.debts.history(Instant::now()))
            }
            Self::Plain { .. } if changes.any => WritePlan::Write,
            Self::Plain { .. } => WritePlan::Idle,
        }
    }

    /// Does what [`plan`](Self::plan) said about `changes`.
    pub async fn keep(&mut self, plan: WritePlan, changes: Changes, state: ToKeep) -> Result<(), MemoryError> {
        let increment = match plan {
            WritePlan::Idle | WritePlan::Wait(_) => return Ok(()),
            WritePlan::Write => false,
            WritePlan::WriteAndIncrement => true,
        };
        match self {
            Self::Sealed(memory) => memory.keep(increment, changes, state).await,
            Self::Plain { directory, kept, writes } => {
                // The file has no place for identities, nor for the time, the boot, the bundles of before and the agent's own CA.
                let AgentRecord { chain, reattestable, bundle, disbelieved_since, .. } = state.record;
                let record = AgentRecord { chain, reattestable, bundle, disbelieved_since, ..AgentRecord::default() };
                if kept.as_deref() != Some(&record) {
                    *kept = None;
                    let directory = directory.clone();
                    let write = move || {
                        record.write(&directory)?;
                        forget_older_cache(&directory).map(|()| record)
                    };
                    *kept = Some(Box::new(writes.run(write).await?));
                }
                Ok(())
            }
        }
    }

    /// Forgets everything, and makes copies worthless where the chip can.
    pub async fn wipe(&mut self) -> Result<(), MemoryError> {
        match self {
            Self::Sealed(memory) => memory.wipe().await,
            Self::Plain { directory, kept, writes } => {
                *kept = None;
                let directory = directory.clone();
                let remove = move || {
                    durable_file::remove(&directory.join(FILE_NAME)).map_err(RecordError::Io)?;
                    forget_older_cache(&directory)
                };
                Ok(writes.run(remove).await?)
            }
        }
    }
}

/// A sealed cache from when there was one: what the server has said since stands in no file, and what it took away would come back with it.
fn forget_older_cache(directory: &Path) -> Result<(), RecordError> {
    durable_file::remove(&directory.join(sealed_cache::FILE_NAME)).map_err(RecordError::Io)
}

impl SealedMemory {
    /// The cache itself, for reading.
    pub fn cache(&mut self) -> &mut SealedCache {
        &mut self.cache
    }

    /// The identities in its file were taken up.
    pub fn note_taken_up(&mut self) {
        self.is_sound = true;
    }

    async fn keep(&mut self, increment: bool, changes: Changes, state: ToKeep) -> Result<(), MemoryError> {
        self.cache.store(&state.record, &state.identities, increment).await?;
        self.debts.kept(increment, changes, Instant::now());
        self.is_sound = true;
        Ok(())
    }

    /// Whoever has nothing left begins anew: what it learns next does not wait for what was written before.
    async fn wipe(&mut self) -> Result<(), MemoryError> {
        self.debts.wiped();
        self.is_sound = false;
        Ok(self.cache.wipe().await?)
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::TrustDomain;

    use super::*;
    use crate::durable_file::slow_disk::with_a_slow_disk;

    #[tokio::test]
    async fn a_plain_record_holds_since_when_the_server_is_not_believed() {
        let directory = tempfile::tempdir().expect("directory");
        let record = AgentRecord { disbelieved_since: Some(1_795_641_275), ..AgentRecord::default() };
        let state = ToKeep { record: record.clone(), identities: Zeroizing::default() };
        let mut memory = Memory::plain(directory.path().to_owned());
        memory.keep(WritePlan::Write, Changes::default(), state).await.expect("kept");
        let read = AgentRecord::read(directory.path(), &TrustDomain::new("td").expect("legal"));
        assert_eq!(read.expect("read"), Some(record));
    }

    #[test]
    fn a_slow_disk_keeps_nobody_else_waiting_while_a_plain_record_is_written_or_wiped() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join(FILE_NAME);
        let state = || ToKeep { record: AgentRecord::default(), identities: Zeroizing::default() };
        with_a_slow_disk(|disk| async {
            let mut memory = Memory::plain(directory.path().to_owned());
            let keeping = memory.keep(WritePlan::Write, Changes::default(), state());
            disk.is_waited_for(keeping).await.expect("kept");
            assert!(file.exists(), "it is there once that was waited for");
        });
        with_a_slow_disk(|disk| async {
            let mut memory = Memory::plain(directory.path().to_owned());
            disk.is_waited_for(memory.wipe()).await.expect("wiped");
            assert!(!file.exists());
        });
    }
}
