//! Keys in hardware, a PKCS#11 token or the TPM: made there for each certificate, and used there by whoever reads the files.
//!
//! ```text
//!  key made ─► CSR signed in hardware ─► the agent, the server ─► certificate ─► verified ─► delivered, with where the key is ─► told
//!      ▲                                                                                                        half of its life │
//!      └──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! A new key is made only when those who use the files have been told of the current one; until then the certificate is renewed for the key
//! that is there. So nothing that somebody uses is destroyed, whatever moment this process is killed at.

mod chip;
mod renewal;
mod token;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironroot_api::SpiffeId;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::hardware_key::{FetchIdentitiesResponse, Identity};
use ironroot_api::pb::workload::X509svid;
use ironroot_attest::tpm::{KeyBlob, TpmAddress};
use ironroot_hsm::TokenUri;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::CommandError;
use ironroot_text::HumanFile;
use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};
use tonic::Streaming;

use super::super::api::WorkloadSvid;
use super::super::connection::Connection;
use super::files::{self, Directory, FilesAt, SetFile};
use super::source::{Set, Source, chosen};
use crate::agent_key::{AgentKey, KeyError, TokenHeldKey};
use crate::cli::api::read_federated;
use crate::sync::unit;
use chip::{ChipKey, ChipStore};
use renewal::{Now, Renewal};
use token::{Slot, TokenStore};

/// The file by which the next run knows what the set holds.
const NOTE: &str = "set.json";
/// Longest such file, bytes: a wrapped key has some hundreds.
const MAX_NOTE_BYTES: usize = 8 * 1024;
/// Longest file with a chain that is read back, bytes: a dozen certificates.
const MAX_CHAIN_BYTES: usize = 64 * 1024;

/// Where keys are made.
enum Store {
    Token(TokenStore),
    Chip(ChipStore),
}

/// A key that is there.
#[derive(Clone)]
enum HardwareKey {
    Token(Slot, TokenHeldKey),
    Chip(ChipKey),
}

/// By what the next run finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeyPlace {
    Slot(Slot),
    Wrapped(KeyBlob),
}

/// What [`NOTE`] says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    key: KeyPlace,
    /// Of the identity when the certificate was had, base64.
    version: String,
}

/// A set that is there.
struct Current {
    key: KeyPlace,
    version: Vec<u8>,
    /// DER, one after the other.
    chain: Bytes,
}

/// A key of this delivery's, and what certifies it.
struct Pair {
    key: HardwareKey,
    svid: WorkloadSvid,
    version: Bytes,
}

/// See the module.
pub(super) struct InHardware {
    store: Store,
    spiffe_id: Option<SpiffeId>,
    /// A key that was made and is not certified yet.
    made: Option<HardwareKey>,
    /// The leaf that was had or found last in this run, DER, and when the next one is to be made.
    due: Option<(Vec<u8>, Renewal)>,
}

impl Store {
    /// The key at `place`; none if there is none, or none that this store can use.
    async fn find(&self, place: &KeyPlace) -> Result<Option<HardwareKey>, KeyError> {
        Ok(match (self, place) {
            (Self::Token(token), KeyPlace::Slot(slot)) => {
                token.find(*slot).await?.map(|key| HardwareKey::Token(*slot, key))
            }
            (Self::Chip(chip), KeyPlace::Wrapped(blob)) => chip.find(blob).await?.map(HardwareKey::Chip),
            _ => None,
        })
    }

    /// A new key, which leaves the one at `current` what it is.
    async fn make(&self, current: Option<&KeyPlace>) -> Result<HardwareKey, KeyError> {
        let slot = current.and_then(|place| if let KeyPlace::Slot(slot) = place { Some(*slot) } else { None });
        Ok(match self {
            Self::Token(token) => token.make(slot).await.map(|(slot, key)| HardwareKey::Token(slot, key))?,
            Self::Chip(chip) => HardwareKey::Chip(chip.make().await?),
        })
    }

    /// A PKCS#10 request over the key, DER.
    async fn request(&self, key: &HardwareKey) -> Result<Vec<u8>, KeyError> {
        let ready = match (self, key) {
            (Self::Chip(chip), HardwareKey::Chip(key)) => AgentKey::Tpm(Arc::new(chip.ready(key).await?)),
            (_, HardwareKey::Token(_, key)) => AgentKey::Token(key.clone()),
            (Self::Token(_), HardwareKey::Chip(_)) => return Err(KeyError::Crypto("sign in a token with a TPM's key")),
        };
        ready.certificate_request().await
    }

    /// What stands in the place of the key: PEM for who reads keys, and the files besides. What a TPM has wrapped is for those alone who may
    /// use it, since on this device it is all that they need.
    fn references(&self, key: &HardwareKey) -> Result<(SetFile, Box<FilesAt>), CommandError> {
        match (self, key) {
            (Self::Token(token), HardwareKey::Token(_, key)) => {
                let (pem, others) = token.references(key)?;
                Ok((SetFile::open(KEY, pem), Box::new(others)))
            }
            (_, HardwareKey::Chip(key)) => {
                let pem = key.pem().map_err(CommandError::run)?;
                Ok((SetFile::secret(KEY, pem), Box::new(|_: &Path| Vec::new())))
            }
            (Self::Chip(_), HardwareKey::Token(..)) => {
                Err(CommandError::run(KeyError::Crypto("deliver a token's key as a TPM's")))
            }
        }
    }
}

/// The file that software reads the key from.
const KEY: &str = "svid.key";

impl HardwareKey {
    fn spki_der(&self) -> &[u8] {
        match self {
            Self::Token(_, key) => key.spki_der(),
            Self::Chip(key) => key.spki_der(),
        }
    }

    fn place(&self) -> KeyPlace {
        match self {
            Self::Token(slot, _) => KeyPlace::Slot(*slot),
            Self::Chip(key) => KeyPlace::Wrapped(key.blob.clone()),
        }
    }
}

impl InHardware {
    /// In a token. Opens nothing yet; everything that is wrong with the command line is in the one error.
    pub(super) fn token(
        uri: TokenUri,
        name: Option<String>,
        directory: &Path,
        spiffe_id: Option<SpiffeId>,
    ) -> Result<Self, CommandError> {
        Ok(Self::of(Store::Token(TokenStore::new(uri, name, directory)?), spiffe_id))
    }

    /// In the TPM at this address.
    pub(super) fn chip(address: TpmAddress, spiffe_id: Option<SpiffeId>) -> Self {
        Self::of(Store::Chip(ChipStore { address }), spiffe_id)
    }

    fn of(store: Store, spiffe_id: Option<SpiffeId>) -> Self {
        Self { store, spiffe_id, made: None, due: None }
    }

    /// What is to be delivered: the pair that is, while it is good, or another one.
    async fn pair(
        &mut self,
        identity: &Wanted<'_>,
        directory: &Directory,
        connection: &Connection,
    ) -> Result<Pair, CommandError> {
        let Some(current) = directory.current().and_then(|set| Current::read(&set)) else {
            return self.renewed(identity, None, None, connection).await;
        };
        let held = self.store.find(&current.key).await.map_err(CommandError::run)?;
        let held = held.filter(|key| current.is_of(key));
        match (held, identity.verified(&current.chain).ok()) {
            (Some(key), Some(svid)) if *current.version == *identity.version && !self.renewal(&svid).is_zero() => {
                Ok(Pair { key, svid, version: identity.version.clone() })
            }
            (held, _) => {
                let kept = held.filter(|_| !directory.is_told());
                self.renewed(identity, Some(&current.key), kept, connection).await
            }
        }
    }

    /// A certificate for the key that is `kept`, or for a new one beside that of `current`.
    async fn renewed(
        &mut self,
        identity: &Wanted<'_>,
        current: Option<&KeyPlace>,
        kept: Option<HardwareKey>,
        connection: &Connection,
    ) -> Result<Pair, CommandError> {
        let made = self.made.take().filter(|made| Some(&made.place()) != current);
        let key = match kept.or(made) {
            Some(key) => key,
            None => self.store.make(current).await.map_err(CommandError::run)?,
        };
        // While the server is away, this very key is tried again.
        self.made = Some(key.clone());
        let csr = self.store.request(&key).await.map_err(CommandError::run)?;
        let svid = identity.verified(&connection.certified(identity.id, csr).await?)?;
        if svid.chain.first().map(Certificate::spki_der).as_deref() != Some(key.spki_der()) {
            return Err(CommandError::run(KeyError::Crypto("verify that the certificate is for the key")));
        }
        let renewal = Renewal::of_new((begin(&svid), svid.end()), now(), unit());
        (self.made, self.due) = (None, Some((leaf(&svid).to_vec(), renewal)));
        Ok(Pair { key, svid, version: identity.version.clone() })
    }

    /// When the next certificate is to be made.
    fn renewal(&mut self, svid: &WorkloadSvid) -> Duration {
        let known = self.due.as_ref().filter(|(had, _)| had == leaf(svid)).map(|(_, renewal)| *renewal);
        let renewal = known.unwrap_or_else(|| Renewal::of_kept((begin(svid), svid.end()), now(), unit()));
        self.due = Some((leaf(svid).to_vec(), renewal));
        renewal.rest(now())
    }

    fn set(&mut self, pair: &Pair, mut files: Vec<SetFile>) -> Result<Set, CommandError> {
        let (key, references) = self.store.references(&pair.key)?;
        let chain = files::in_pem(&pair.svid.chain);
        let note = Note { key: pair.key.place(), version: STANDARD.encode(&pair.version) };
        let note = serde_json::to_vec(&note).map_err(CommandError::run)?;
        files.push(key.beside("svid_and_key.pem", &chain));
        files.push(SetFile::open("svid.pem", chain));
        files.push(SetFile::open(NOTE, note).for_readers_of(&key));
        files.push(key);
        let files = move |place: &Path| files.iter().cloned().chain(references(place)).collect();
        let (id, end) = (pair.svid.id.clone(), pair.svid.end());
        Ok(Set { id, end, renewal: Some(self.renewal(&pair.svid)), files: Box::new(files) })
    }
}

impl Source for InHardware {
    type Answer = FetchIdentitiesResponse;

    async fn stream(&self, connection: &Connection) -> Result<Streaming<FetchIdentitiesResponse>, CommandError> {
        connection.hardware_identities().await
    }

    async fn set(
        &mut self,
        answer: &FetchIdentitiesResponse,
        directory: &Directory,
        connection: &Connection,
    ) -> Result<Set, CommandError> {
        let identities = identities(&answer.identities)?;
        let ids: Vec<String> = identities.iter().map(|(id, _)| id.to_string()).collect();
        let (id, identity) = chosen(&identities, |(id, _)| id, self.spiffe_id.as_ref(), &ids)?;
        let wanted = Wanted { id, version: &identity.version, bundle: &answer.bundle };
        let pair = self.pair(&wanted, directory, connection).await?;
        let federated = read_federated(&answer.federated_bundles)?;
        InHardware::set(self, &pair, files::bundles(&pair.svid.bundle, &federated)?)
    }

    fn told(&mut self, directory: &Directory) -> Result<(), CommandError> {
        let failed = |source| CommandError::File { doing: "note in", path: directory.path().to_owned(), source };
        directory.note_told().map_err(failed)
    }
}

/// What a certificate is to be for.
struct Wanted<'a> {
    id: &'a SpiffeId,
    version: &'a Bytes,
    bundle: &'a Bytes,
}

impl Wanted<'_> {
    /// A chain (DER, one after the other) as this identity's, valid now.
    fn verified(&self, chain: &Bytes) -> Result<WorkloadSvid, CommandError> {
        let svid = X509svid {
            spiffe_id: self.id.to_string(),
            x509_svid: chain.clone(),
            bundle: self.bundle.clone(),
            ..X509svid::default()
        };
        WorkloadSvid::verified(&svid, wall_unix())
    }
}

impl Current {
    /// None: it was cut off, or its key is not in hardware.
    fn read(set: &Path) -> Option<Self> {
        let note = HumanFile::regular(&set.join(NOTE), MAX_NOTE_BYTES).ok()?;
        let note: Note = serde_json::from_str(note.text()).ok()?;
        let chain = HumanFile::regular(&set.join("svid.pem"), MAX_CHAIN_BYTES).ok()?;
        let chain = ironroot_text::pem::certificates(chain.text()).ok()?;
        let chain: Vec<u8> = chain.iter().flat_map(|der| der.as_ref().to_vec()).collect();
        Some(Self { key: note.key, version: STANDARD.decode(&note.version).ok()?, chain: chain.into() })
    }

    fn is_of(&self, key: &HardwareKey) -> bool {
        let chain = Certificate::parse_concatenated(&self.chain).unwrap_or_default();
        chain.first().is_some_and(|leaf| leaf.spki_der() == key.spki_der())
    }
}

fn identities(told: &[Identity]) -> Result<Vec<(SpiffeId, &Identity)>, CommandError> {
    let parsed = told.iter().map(|identity| Ok((SpiffeId::parse(&identity.spiffe_id)?, identity)));
    let wrong = |error: ironroot_api::SpiffeIdError| {
        CommandError::Malformed(format!("the agent's answer names no SPIFFE ID: {error}"))
    };
    parsed.collect::<Result<_, _>>().map_err(wrong)
}

fn begin(svid: &WorkloadSvid) -> i64 {
    svid.chain.iter().map(Certificate::not_before_unix).max().unwrap_or(0)
}

/// DER.
fn leaf(svid: &WorkloadSvid) -> &[u8] {
    svid.chain.first().map_or(&[], |leaf| leaf.der())
}

fn now() -> Now {
    Now { monotonic: Instant::now(), wall: wall_unix() }
}

#[cfg(test)]
mod tests;
