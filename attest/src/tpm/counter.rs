//! A counter in NV that only ever goes up: what the sealed cache is checked against for rollback.

use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::NvIndexType;
use tss_esapi::handles::NvIndexHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest, NvPublic, NvPublicBuilder};
use tss_esapi::tss2_esys::{TPM2_HANDLE, TPMA_NV, TPMI_ALG_HASH};
use zeroize::Zeroizing;

use super::chip::Chip;
use super::connection::{Connection, NO_SESSION, Sessions};
use super::error::TpmError;
use super::hierarchy::KeyHierarchy;
use super::key_blob::KeyBlob;
use super::nv::nv_index;
use super::response_code as rc;
use super::sessions::Encrypted;
use crate::node::tpm2::PcrSelection;
use crate::structures::{Hash, Name};

/// NV index of the agent's counter, in the range that the TCG leaves to the owner (0x01800000 to 0x01bfffff, Registry of
/// Reserved TPM 2.0 Handles §2.2.2).
pub const DEFAULT_COUNTER_INDEX: u32 = 0x0180_0100;

/// Length of a counter, bytes.
const COUNTER_BYTES: u16 = 8;

/// What stands at an NV index where counters are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CounterAt {
    /// Nothing is defined there.
    Free,
    /// The counter that was asked for, and its value; none if it was never incremented.
    Ours(Option<u64>),
    /// Something that was made in this name; empty if it was made without one.
    Others(Vec<u8>),
}

impl Chip {
    /// The counter's value; none if it was never incremented.
    ///
    /// Read in a session salted to the storage root key, which `under` (an object made under that key) names: nobody on the
    /// bus can answer in the chip's place. Without `under` the chip's word is taken for which key that is.
    pub fn counter_read(&mut self, index: u32, under: Option<&KeyBlob>) -> Result<Option<u64>, TpmError> {
        self.task(|tpm| tpm.read_counter(index, under))
    }

    /// Adds one and gives the new value, having made the counter if there is none. `under` as in
    /// [`counter_read`](Chip::counter_read).
    ///
    /// The first value is higher than that of any counter deleted before, so that deleting the index gains nothing
    /// (Part 3 §31.8). Chips wear out after some 100 000 increments, and refuse when they come too fast: then the error is
    /// [`Busy`](TpmError::Busy). When the connection breaks it is unknown whether the increment happened: read again.
    pub fn counter_increment(&mut self, index: u32, under: Option<&KeyBlob>) -> Result<u64, TpmError> {
        self.task(|tpm| tpm.define_counter(index, &[]))?;
        self.task_once(|tpm| {
            let session = tpm.counter_session(under)?;
            tpm.with_nv_index(index, |tpm, handle| {
                let sessions = (Some(session), None, None);
                tpm.command("TPM2_NV_Increment", sessions, |esys| esys.nv_increment(NvAuth::NvIndex(handle), handle))
            })?;
            tpm.end_session(session)?;
            tpm.read_counter(index, under)?.ok_or(TpmError::Malformed {
                command: "TPM2_NV_Increment",
                reason: "the counter has no value after an increment",
            })
        })
    }
}

impl Chip {
    /// What stands at `index`; its value, too, if it is the counter that was made in the name of `owner`. `under` as in
    /// [`counter_read`](Chip::counter_read).
    pub fn counter_of(&mut self, index: u32, owner: &[u8; 32], under: Option<&KeyBlob>) -> Result<CounterAt, TpmError> {
        self.task(|tpm| {
            let found = tpm.with_nv_index_if_defined(index, |tpm, handle| {
                let public = tpm.named_public(handle)?;
                match public.authorization_policy().value() {
                    named if named == owner => tpm.read_counter_at(handle, &public, under).map(CounterAt::Ours),
                    other => Ok(CounterAt::Others(other.to_vec())),
                }
            })?;
            Ok(found.unwrap_or(CounterAt::Free))
        })
    }

    /// As [`unseal`](Chip::unseal), having looked at the counter on the way: its value, if the one at `index` was made in the name of
    /// `owner` and has one; none says nothing, and [`counter_of`](Chip::counter_of) all.
    ///
    /// One session is for both, and the name alone tells whose the index is: a slow chip takes 5 to 200 ms for each command.
    pub fn counter_and_unseal(
        &mut self,
        (index, owner): (u32, &[u8; 32]),
        (blob, pcrs): (&KeyBlob, PcrSelection),
    ) -> Result<(Option<u64>, Zeroizing<Vec<u8>>), TpmError> {
        let name = name_of(&counter_index(index, owner, true)?);
        self.task(|tpm| {
            let root = tpm.storage_root_of(blob)?;
            let session = tpm.policy_session(&root, Encrypted::Response)?;
            let counter = tpm.with_nv_index_if_defined(index, |tpm, handle| {
                if name.is_none() || name_of(&tpm.named_public(handle)?) != name {
                    return Ok(None);
                }
                tpm.nv_counter(handle, (Some(AuthSession::Password), Some(session), None))
            })?;
            let secret = tpm.unseal_under(&root, session, blob, pcrs)?;
            Ok((counter.flatten(), secret))
        })
    }

    /// Makes the counter, if there is none, in the name of `owner`, a SHA-256. The name stands in the place of the index's
    /// authorization policy, which none of its attributes lets anybody use, and cannot be changed as long as the index exists.
    pub fn counter_define(&mut self, index: u32, owner: &[u8; 32]) -> Result<(), TpmError> {
        self.task(|tpm| tpm.define_counter(index, owner))
    }
}

impl Connection {
    fn read_counter(&mut self, index: u32, under: Option<&KeyBlob>) -> Result<Option<u64>, TpmError> {
        let read = self.with_nv_index_if_defined(index, |tpm, handle| {
            let public = tpm.named_public(handle)?;
            tpm.read_counter_at(handle, &public, under)
        });
        read.map(Option::flatten)
    }

    fn read_counter_at(
        &mut self,
        handle: NvIndexHandle,
        public: &NvPublic,
        under: Option<&KeyBlob>,
    ) -> Result<Option<u64>, TpmError> {
        // A counter that was deleted comes back higher; an ordinary index in its place would hold any number.
        if !matches!(public.attributes().index_type(), Ok(NvIndexType::Counter)) {
            return Err(TpmError::Argument("the counter's NV index holds something that is not a counter"));
        }
        let session = self.counter_session(under)?;
        self.nv_counter(handle, (Some(session), None, None))
    }

    /// TPM2_NV_Read; none if it was never incremented.
    fn nv_counter(&mut self, handle: NvIndexHandle, sessions: Sessions) -> Result<Option<u64>, TpmError> {
        let read = self
            .command("TPM2_NV_Read", sessions, |esys| esys.nv_read(NvAuth::NvIndex(handle), handle, COUNTER_BYTES, 0));
        match read {
            Ok(bytes) => match bytes.value().try_into() {
                Ok(value) => Ok(Some(u64::from_be_bytes(value))),
                Err(_) => Err(TpmError::Malformed { command: "TPM2_NV_Read", reason: "a counter has 8 bytes" }),
            },
            Err(error) if error.is(rc::NV_UNINITIALIZED) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the index is, as its name says: the name goes into the HMAC of the session in which it is read, so that nobody on the bus can
    /// tell another index of it. The library compares the two in no version: it takes the name as it is told (Esys_NV_ReadPublic), and what
    /// Esys_TR_GetName gives is computed of the area.
    fn named_public(&mut self, handle: NvIndexHandle) -> Result<NvPublic, TpmError> {
        let command = "TPM2_NV_ReadPublic";
        let (public, name) = self.command(command, NO_SESSION, |esys| esys.nv_read_public(handle))?;
        match name_of(&public) {
            Some(own) if own.as_bytes() == name.value() => Ok(public),
            _ => Err(TpmError::Malformed { command, reason: "the index and its name do not belong together" }),
        }
    }

    fn counter_session(&mut self, under: Option<&KeyBlob>) -> Result<AuthSession, TpmError> {
        let root = match under {
            Some(blob) => self.storage_root_of(blob)?,
            None => self.storage_root()?,
        };
        let session = self.hmac_session(&root, Encrypted::Response)?;
        self.release(&root)?;
        Ok(session)
    }

    fn is_defined(&mut self, index: u32) -> Result<bool, TpmError> {
        Ok(self.nv_indices(index)?.first() == Some(&index))
    }

    fn define_counter(&mut self, index: u32, owner: &[u8]) -> Result<(), TpmError> {
        if self.is_defined(index)? {
            return Ok(());
        }
        let public = counter_index(index, owner, false)?;
        self.authorized_by(KeyHierarchy::Owner, |tpm, session| {
            tpm.command("TPM2_NV_DefineSpace", (Some(session), None, None), |esys| {
                let handle = esys.nv_define_space(Provision::Owner, None, public.clone())?;
                esys.tr_close(&mut handle.into())
            })
        })
    }
}

/// The name of an NV index: the hash of its TPMS_NV_PUBLIC (Part 1 §16, Part 2 §13.5).
fn name_of(public: &NvPublic) -> Option<Name> {
    let algorithm = TPMI_ALG_HASH::from(public.name_algorithm());
    let policy = public.authorization_policy().value();
    let area = [
        &TPM2_HANDLE::from(public.nv_index()).to_be_bytes()[..],
        &algorithm.to_be_bytes(),
        &TPMA_NV::try_from(public.attributes()).ok()?.to_be_bytes(),
        &u16::try_from(policy.len()).ok()?.to_be_bytes(),
        policy,
        &u16::try_from(public.data_size()).ok()?.to_be_bytes(),
    ];
    Some(Name::of_public_area(Hash::from_id(algorithm).ok()?, &area.concat()))
}

/// Read and counted up with the index's empty auth value, so that no owner password is needed later; noDA as everything. Once it has a
/// value, it `is_written`, which its name says, too.
fn counter_index(index: u32, owner: &[u8], is_written: bool) -> Result<NvPublic, TpmError> {
    let bad = |e| TpmError::of("TPM2_NV_DefineSpace", e);
    let attributes = NvIndexAttributesBuilder::new()
        .with_nv_index_type(NvIndexType::Counter)
        .with_owner_read(true)
        .with_owner_write(true)
        .with_auth_read(true)
        .with_auth_write(true)
        .with_no_da(true)
        .with_written(is_written)
        .build()
        .map_err(bad)?;
    NvPublicBuilder::new()
        .with_nv_index(nv_index(index)?)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_index_auth_policy(Digest::try_from(owner).map_err(bad)?)
        .with_data_area_size(usize::from(COUNTER_BYTES))
        .build()
        .map_err(bad)
}
