//! Which of the counters on one chip is this cache's.
//!
//! Several caches (of several agents, or of one agent with several servers) look for a place at the same time. So a counter is
//! looked for and made in one turn at the chip: between the two nobody else can take the index.

use std::sync::OnceLock;

use ironroot_attest::node::tpm2::PcrSelection;
use ironroot_attest::tpm::{Chip, CounterAt, KeyBlob, TpmError};
use tracing::{info, warn};
use zeroize::Zeroizing;

/// How many agents can have their counters on one chip; the next one shares the first one's.
pub const INDICES: u32 = 8;

/// Where one cache's counter is among [`INDICES`] NV indices.
#[derive(Debug)]
pub(super) struct CounterPlace {
    first: u32,
    owner: [u8; 32],
    /// Known once it is on the chip.
    index: OnceLock<u32>,
}

/// What the chip says of a file.
pub(super) struct ChipsWord {
    /// The counter; none where there is none yet.
    pub(super) counter: Result<Option<u64>, TpmError>,
    /// The key of the identities, if the chip gave it without more ado.
    pub(super) key: Option<Zeroizing<Vec<u8>>>,
}

/// Where a counter is.
enum Place {
    /// It is there, and was read when it was looked for.
    Read(u32, Option<u64>),
    /// It is there.
    At(u32),
    /// It is not; this index is the one to make it at.
    ToMakeAt(u32),
}

impl CounterPlace {
    /// Of the cache that `owner` names, from NV index `first` on.
    pub(super) fn new(first: u32, owner: [u8; 32]) -> Self {
        Self { first, owner, index: OnceLock::new() }
    }

    /// The index where the counter is, once it was looked for and is there.
    pub(super) fn index(&self) -> Option<u32> {
        self.index.get().copied()
    }

    /// The counter, or `None` where there is none yet. `has_file`: see [`Self::look`].
    pub(super) fn read(
        &self,
        chip: &mut Chip,
        has_file: bool,
        under: Option<&KeyBlob>,
    ) -> Result<Option<u64>, TpmError> {
        match self.place(chip, has_file, under)? {
            Place::Read(_, counter) => Ok(counter),
            Place::At(index) => chip.counter_read(index, under),
            Place::ToMakeAt(_) => Ok(None),
        }
    }

    /// The counter as [`Self::read`] gives it, and what was sealed to `pcrs` if the chip opens it; whoever wants to know why it does not
    /// asks for that alone. Where the counter is where the file says (`bound`), or where it is looked for first, the chip is asked for both in
    /// one task.
    pub(super) fn read_and_unseal(
        &self,
        chip: &mut Chip,
        bound: Option<u32>,
        (blob, pcrs): (&KeyBlob, PcrSelection),
    ) -> ChipsWord {
        let bound = bound.filter(|index| (self.first..self.first.saturating_add(INDICES)).contains(index));
        let index = self.index().or(bound).unwrap_or(self.first);
        match chip.counter_and_unseal((index, &self.owner), (blob, pcrs)) {
            Ok((Some(counter), secret)) => {
                self.is_at(index);
                ChipsWord { counter: Ok(Some(counter)), key: Some(secret) }
            }
            Ok((None, secret)) => ChipsWord { counter: self.read(chip, true, Some(blob)), key: Some(secret) },
            // Whoever waited for a chip that hangs does not wait again for the same.
            Err(error @ (TpmError::Hung { .. } | TpmError::Absent { .. } | TpmError::Transport(_))) => {
                ChipsWord { counter: Err(error), key: None }
            }
            Err(_) => ChipsWord { counter: self.read(chip, true, Some(blob)), key: None },
        }
    }

    /// The counter, which is made where there is none.
    pub(super) fn read_or_make(
        &self,
        chip: &mut Chip,
        has_file: bool,
        under: Option<&KeyBlob>,
    ) -> Result<u64, TpmError> {
        match self.read(chip, has_file, under)? {
            Some(counter) => Ok(counter),
            None => self.raise(chip, has_file, under),
        }
    }

    /// One more than it was; it is made where there is none.
    pub(super) fn raise(&self, chip: &mut Chip, has_file: bool, under: Option<&KeyBlob>) -> Result<u64, TpmError> {
        let (Place::Read(index, _) | Place::At(index) | Place::ToMakeAt(index)) = self.place(chip, has_file, under)?;
        chip.counter_define(index, &self.owner)?;
        let counter = chip.counter_increment(index, under)?;
        self.is_at(index);
        Ok(counter)
    }

    fn place(&self, chip: &mut Chip, has_file: bool, under: Option<&KeyBlob>) -> Result<Place, TpmError> {
        if let Some(index) = self.index.get() {
            return Ok(Place::At(*index));
        }
        let place = self.look(chip, has_file, under)?;
        if let Place::Read(index, _) | Place::At(index) = place {
            self.is_at(index);
        }
        Ok(place)
    }

    /// The index that is ours; else, if we have a file, one that was made before indices had owners; else the first free one; else
    /// the first, with whoever has it.
    fn look(&self, chip: &mut Chip, has_file: bool, under: Option<&KeyBlob>) -> Result<Place, TpmError> {
        let (mut unowned, mut free) = (None, None);
        for index in self.first..self.first.saturating_add(INDICES) {
            match chip.counter_of(index, &self.owner, under)? {
                CounterAt::Ours(counter) => return Ok(Place::Read(index, counter)),
                CounterAt::Others(found) if found.is_empty() && has_file => unowned = unowned.or(Some(index)),
                CounterAt::Others(_) => {}
                CounterAt::Free => free = free.or(Some(index)),
            }
        }
        Ok(match (unowned, free) {
            (Some(index), _) => Place::At(index),
            (None, Some(index)) => Place::ToMakeAt(index),
            (None, None) => {
                let index = format!("{:#010x}", self.first);
                warn!(
                    index,
                    "all {INDICES} counters on this TPM are other agents': this one shares another's, and the two make each other's \
                     caches worthless; undefine one that nobody needs (tpm2_nvundefine), or set tpm_nv_index"
                );
                Place::At(self.first)
            }
        })
    }

    fn is_at(&self, index: u32) {
        if self.index.set(index).is_ok() && index != self.first {
            let (configured, used) = (format!("{:#010x}", self.first), format!("{index:#010x}"));
            info!(configured, used, "the counter at tpm_nv_index is of another agent on this TPM; using another one");
        }
    }
}
