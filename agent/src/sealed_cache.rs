//! Identities in a file that only this TPM, booted as before, can open.
//!
//! Two sections in one file, each encrypted under its own key sealed to the chip. *Identities* (entries, SVIDs, private
//! keys, bundle) is sealed to the configured PCRs. The *record* (the agent's certificate, bundle, time) is sealed to the
//! chip alone, so that a firmware update costs the offline identities but not the agent's way back to its server.
//! Where the operator's key is configured, identities also open in a state that it has signed (`signed_states`).
//! A counter in the chip makes every older file worthless.
//!
//! What it does not defend against: software that runs on this device with access to its TPM, before or beside us.

mod contents;
mod counter_place;
mod envelope;
mod generations;
mod refusal;
mod sealing;
mod signed_states;
mod write_plan;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_api::TrustDomain;
use ironroot_attest::node::tpm2::PcrSelection;
use ironroot_attest::tpm::{Chip, KeyBlob, Tpm, TpmError};
use thiserror::Error;
use tracing::debug;
use zeroize::Zeroizing;

pub use contents::{CachedIdentities, IdentitiesToCache, encode_identities};
pub use counter_place::INDICES;
pub use envelope::{MAX_CACHE_BYTES, SectionKind};
pub use refusal::CacheRefusal;
pub use signed_states::{MAX_POLICY_FILES, PolicyFileRefusal, SignedStates};
pub use write_plan::{
    COUNTER_BURST, COUNTER_INTERVAL, Changes, Debts, History, WRITE_BURST, WRITE_INTERVAL, WritePlan, plan,
};

use crate::agent_record::AgentRecord;
use crate::durable_file::{self, Writes};
use counter_place::{ChipsWord, CounterPlace};
use envelope::{Envelope, SealedKey, Section};
pub(crate) use generations::{Seen, Step, is_current};
use sealing::Signed;

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "identities.sealed";

/// Why the cache could not be written. The agent goes on; after a restart without server it would serve what the last
/// write left.
#[derive(Debug, Error)]
pub enum CacheError {
    /// The chip refused or is away.
    #[error("the TPM could not {0}")]
    Tpm(&'static str, #[source] TpmError),
    /// The disk does not take it.
    #[error("the file cannot be written")]
    Io(#[source] std::io::Error),
    /// No randomness, or more identities than a cache holds.
    #[error("the content cannot be encrypted, or is larger than {MAX_CACHE_BYTES} bytes")]
    Encode,
}

/// The cache of one agent.
pub struct SealedCache {
    tpm: Tpm,
    path: PathBuf,
    pcrs: PcrSelection,
    counter: Arc<CounterPlace>,
    record_key: Option<SealedKey>,
    identities_key: Option<SealedKey>,
    /// Who else says what may have booted, and what is known of it.
    signed: Option<Signed>,
    /// What was opened is to be sealed otherwise than it was.
    to_seal_anew: bool,
    ek_sha256: Option<[u8; 32]>,
    /// A file was removed, its copies are not worthless yet.
    increment_owed: bool,
    /// Held while the file is replaced: a write whose caller was cut short goes on beside the next one.
    seen: Arc<Mutex<Seen>>,
    /// Of the file, in their order.
    writes: Writes,
}

/// A file that has been read, nothing of it decrypted yet.
pub struct SealedFile {
    envelope: Envelope,
    told: ChipsWord,
    /// The NV index that the chip's counter was found at.
    counter_index: Option<u32>,
}

impl SealedCache {
    /// A cache in `directory`, its identities sealed to `pcrs`, older files made worthless by the counter at NV index
    /// `first_index`, or at one of the next if other agents on this chip have theirs there.
    pub fn new(tpm: Tpm, directory: &Path, pcrs: PcrSelection, first_index: u32) -> Self {
        Self {
            tpm,
            path: directory.join(FILE_NAME),
            pcrs,
            counter: Arc::new(CounterPlace::new(first_index, owner(directory))),
            record_key: None,
            identities_key: None,
            signed: None,
            to_seal_anew: false,
            ek_sha256: None,
            increment_owed: false,
            seen: Arc::default(),
            writes: Writes::default(),
        }
    }

    /// The same, whose identities also open in states that are signed.
    pub fn with_signed_states(self, states: Option<SignedStates>) -> Self {
        Self { signed: states.map(Signed::new), ..self }
    }

    /// Whether what was read last is to be written again soon, sealed to what counts now: the state of now was signed and not the one it
    /// was sealed in, an epoch was withdrawn, or the operator's key came, went or changed.
    pub fn is_to_be_sealed_anew(&self) -> bool {
        self.to_seal_anew
    }

    /// Reads the file; `None` if there is none, which a first boot is.
    pub async fn open(&mut self) -> Result<Option<SealedFile>, CacheRefusal> {
        let Some(bytes) = durable_file::read(&self.path, MAX_CACHE_BYTES).map_err(unreadable)? else { return Ok(None) };
        let envelope = Envelope::parse(&bytes)?;
        let told = self.ask_chip(&envelope).await;
        if matches!(told.counter, Ok(Some(counter)) if is_current(envelope.generation, counter)) {
            lock(&self.seen).file(envelope.generation);
        }
        Ok(Some(SealedFile { envelope, told, counter_index: self.counter.index() }))
    }

    /// Both in one turn where the present state alone opens the identities: nothing is asked twice of a slow chip.
    async fn ask_chip(&self, envelope: &Envelope) -> ChipsWord {
        let place = Arc::clone(&self.counter);
        let section = envelope.section(SectionKind::Identities).ok().filter(|section| section.pcrs == self.pcrs);
        let told = match section.filter(|_| envelope.branches.is_none()) {
            Some(section) => {
                let (blob, pcrs, bound) = (section.blob.clone(), section.pcrs, envelope.counter_index);
                let look = move |chip: &mut Chip| Ok(place.read_and_unseal(chip, bound, (&blob, pcrs)));
                self.tpm.run("read cache counter and key", look).await
            }
            None => {
                let under = envelope.section(SectionKind::Record).ok().map(|section| section.blob.clone());
                let look = move |chip: &mut Chip| place.read(chip, true, under.as_ref());
                self.tpm
                    .run("read cache counter", look)
                    .await
                    .map(|counter| ChipsWord { counter: Ok(counter), key: None })
            }
        };
        told.unwrap_or_else(|error| ChipsWord { counter: Err(error), key: None })
    }

    /// Decrypts the identities, if they are of this device as it booted now and not older than the counter allows.
    pub async fn identities(
        &mut self,
        file: &SealedFile,
        trust_domain: &TrustDomain,
    ) -> Result<CachedIdentities, CacheRefusal> {
        let section = file.envelope.section(SectionKind::Identities)?;
        if section.pcrs != self.pcrs {
            return Err(CacheRefusal::OtherPcrs);
        }
        let opened = self.unseal_identities(file, section).await?;
        let plaintext = section.open(&opened.key.key)?;
        file.check_generation()?;
        let identities = contents::decode_identities(&plaintext, trust_domain)?;
        self.opened(opened).await;
        Ok(identities)
    }

    /// Decrypts what the agent knew of itself, if it is of this device and not older than the counter allows.
    pub async fn record(&mut self, file: &SealedFile, trust_domain: &TrustDomain) -> Result<AgentRecord, CacheRefusal> {
        let section = file.envelope.section(SectionKind::Record)?;
        if !section.pcrs.is_empty() {
            return Err(CacheRefusal::OtherPcrs);
        }
        let (key, plaintext) = self.unseal(section).await?;
        file.check_generation()?;
        let record = contents::decode_record(&plaintext, trust_domain)?;
        self.record_key = Some(key);
        self.learn_epoch(file.envelope.branches.as_ref());
        self.ek_sha256 = Some(file.envelope.ek_sha256);
        Ok(record)
    }

    /// Raises the counter if a power cut prevented that between the last write and now.
    pub async fn finish_interrupted_write(&self, file: &SealedFile) -> Result<(), CacheError> {
        let Ok(Some(counter)) = file.told.counter else { return Ok(()) };
        if file.envelope.generation == counter.saturating_add(1) {
            self.increment().await?;
        }
        Ok(())
    }

    /// Replaces the file. With `increment`, every file written before is worthless afterwards: the new file is on the disk
    /// under the counter's next value before the counter is raised, and both values are good for it. See `generations`.
    pub async fn store(&mut self, record: &AgentRecord, identities: &[u8], increment: bool) -> Result<(), CacheError> {
        let counter = self.counter().await?;
        let ek_sha256 = self.ek_sha256().await?;
        let record_key = self.sealed_key(SectionKind::Record).await?;
        let identities_key = self.sealed_key(SectionKind::Identities).await?;
        let record = contents::encode_record(record);
        let sections = [
            (SectionKind::Record, &record_key, record.as_slice()),
            (SectionKind::Identities, &identities_key, identities),
        ];
        let index = self.counter.index().ok_or(CacheError::Encode)?;
        let encode =
            |generation| envelope::encode((generation, index), &ek_sha256, &sections).ok_or(CacheError::Encode);
        for step in self.seen().await.store(counter, increment) {
            match step {
                Step::Raise => drop(self.increment().await?),
                Step::Write(generation) => self.write(generation, encode(generation)?).await?,
                Step::Remove => self.remove().await?,
            }
        }
        Ok(())
    }

    /// Makes every copy of the file worthless and removes it. After an error, call it again: where the chip does not answer the
    /// file goes all the same.
    pub async fn wipe(&mut self) -> Result<(), CacheError> {
        self.identities_key = None;
        self.record_key = None;
        self.increment_owed |= self.has_file();
        let raised = if self.increment_owed { self.raise_past_all().await } else { Ok(()) };
        self.increment_owed = raised.is_err();
        self.remove().await?;
        raised
    }

    async fn raise_past_all(&self) -> Result<(), CacheError> {
        let counter = self.counter().await?;
        for step in self.seen().await.wipe(counter) {
            if step == Step::Raise {
                self.increment().await?;
            }
        }
        Ok(())
    }

    async fn remove(&self) -> Result<(), CacheError> {
        self.after_other_writes(|path, _| durable_file::remove(path)).await
    }

    async fn write(&self, generation: u64, file: Vec<u8>) -> Result<(), CacheError> {
        let replace =
            move |path: &Path, seen: &mut Seen| durable_file::replace(path, &file).map(|()| seen.file(generation));
        self.after_other_writes(replace).await?;
        debug!(generation, "sealed cache written");
        Ok(())
    }

    /// An fsync may take a second on worn flash: not on the runtime's thread.
    async fn after_other_writes(
        &self,
        work: impl FnOnce(&Path, &mut Seen) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), CacheError> {
        let (path, seen) = (self.path.clone(), Arc::clone(&self.seen));
        self.writes.run(move || work(&path, &mut lock(&seen))).await.map_err(CacheError::Io)
    }

    /// Waits for a write that is still under way.
    async fn seen(&self) -> Seen {
        let seen = Arc::clone(&self.seen);
        self.writes.run(move || *lock(&seen)).await
    }

    async fn unseal(&self, section: &Section) -> Result<(SealedKey, Zeroizing<Vec<u8>>), CacheRefusal> {
        let (blob, pcrs) = (section.blob.clone(), section.pcrs);
        let key = self.tpm.run("unseal cache key", move |chip| chip.unseal(&blob, pcrs)).await.map_err(unsealing)?;
        let plaintext = section.open(&key)?;
        Ok((SealedKey { blob: section.blob.clone(), pcrs, branches: None, key }, plaintext))
    }

    async fn counter(&self) -> Result<u64, CacheError> {
        let (place, has_file, under) = (Arc::clone(&self.counter), self.has_file(), self.under());
        let read = move |chip: &mut Chip| place.read_or_make(chip, has_file, under.as_ref());
        self.tpm.run("read cache counter", read).await.map_err(|e| CacheError::Tpm("read the cache counter", e))
    }

    async fn increment(&self) -> Result<u64, CacheError> {
        let (place, has_file, under) = (Arc::clone(&self.counter), self.has_file(), self.under());
        let raise = move |chip: &mut Chip| place.raise(chip, has_file, under.as_ref());
        let counter = self.tpm.run("raise cache counter", raise).await;
        let counter = counter.map_err(|e| CacheError::Tpm("raise the cache counter", e))?;
        lock(&self.seen).raised();
        Ok(counter)
    }

    /// Whether there is a file, whatever it holds.
    pub fn has_file(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// An object that names this chip's storage root key, for sessions in which nobody but the chip can answer.
    fn under(&self) -> Option<KeyBlob> {
        self.record_key.as_ref().map(|key| key.blob.clone())
    }

    async fn ek_sha256(&mut self) -> Result<[u8; 32], CacheError> {
        if let Some(hash) = self.ek_sha256 {
            return Ok(hash);
        }
        let ek = self.tpm.run("read endorsement key", |chip| chip.endorsement_key()).await;
        let ek = ek.map_err(|e| CacheError::Tpm("read its endorsement key", e))?;
        let hash = digest(&SHA256, &ek.public).as_ref().try_into().expect("SHA-256 has 32 bytes");
        Ok(*self.ek_sha256.insert(hash))
    }
}

impl SealedFile {
    fn check_generation(&self) -> Result<(), CacheRefusal> {
        let file = self.envelope.generation;
        if let (Some(bound), Some(found)) = (self.envelope.counter_index, self.counter_index)
            && bound != found
        {
            return Err(CacheRefusal::OtherCounter { file: bound, found });
        }
        match &self.told.counter {
            Ok(Some(counter)) if is_current(file, *counter) => Ok(()),
            //= FLT-T5 chip faults: "it yields nothing"
            Ok(Some(counter)) if file < *counter => Err(CacheRefusal::RolledBack { file, counter: *counter }),
            Ok(counter) => Err(CacheRefusal::CounterBehind { file, counter: *counter }),
            Err(_) => Err(CacheRefusal::CounterBehind { file, counter: None }),
        }
    }
}

/// This cache among those on one chip: by its data directory, so that the same agent installed anew is the same.
fn owner(directory: &Path) -> [u8; 32] {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let name = [b"ironroot-agent cache in ".as_slice(), directory.as_os_str().as_encoded_bytes()].concat();
    digest(&SHA256, &name).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A number and a flag: as good after a panic as before.
fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unreadable(error: std::io::Error) -> CacheRefusal {
    if error.kind() == std::io::ErrorKind::InvalidData { CacheRefusal::TooLarge } else { CacheRefusal::Io(error) }
}

fn unsealing(error: TpmError) -> CacheRefusal {
    match error {
        //= FLT-T6 chip faults: "the cache is lost, the way to the server is not"
        TpmError::WrongPolicy(_) | TpmError::UnsignedState { .. } => CacheRefusal::ChangedPcrs(error),
        //= FLT-T4 chip faults: "what the old one sealed is refused by name"
        TpmError::ForeignKey(_) | TpmError::ForeignParent => CacheRefusal::OtherTpm(error),
        // A flipped bit in a sealed key makes it unloadable; only its own chip would have made it.
        TpmError::Argument(_) => CacheRefusal::Altered,
        other => CacheRefusal::Tpm(other),
    }
}
