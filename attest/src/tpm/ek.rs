//! The endorsement key: who this chip is.

use tracing::{info, warn};
use tss_esapi::interface_types::session_handles::AuthSession;

use super::chip::Chip;
use super::connection::Connection;
use super::endorsement_kind::{EndorsementChoice, EndorsementKind, RememberedEndorsement, decide};
use super::error::TpmError;
use super::key_blob::KeyBlob;
use super::key_blob::marshal;
use super::loaded::Loaded;
use super::primary::Primary;
use crate::ek_certificate::ek_sha256;
use crate::structures::{Public, PublicKey};

/// The chip's endorsement key and what its maker wrote about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndorsementKey {
    /// Which of the chip's endorsement keys it is, and how it is enrolled.
    pub identity: RememberedEndorsement,
    /// TPMT_PUBLIC (Part 2 §12.2.4).
    pub public: Vec<u8>,
    /// Its name (Part 1 §16): the parent that its attestation keys have.
    pub name: Vec<u8>,
    /// DER certificates from the chip's NV: the EK's first, then those of CAs on the chip. Empty if there is none for this key.
    pub certificates: Vec<Vec<u8>>,
}

/// An endorsement key in use: a session that is good for one more use of it, and a loaded child.
pub struct Endorsed {
    pub kind: EndorsementKind,
    pub ek: Loaded,
    pub session: AuthSession,
    pub child: Loaded,
}

impl Chip {
    /// The endorsement key of the kind that is set, or that this device is known by, or whose certificate is in the chip and
    /// is for that very key; P-256 where there is none. A nonce or template of the maker's own in NV is ignored, as by other
    /// software.
    pub fn endorsement_key(&mut self) -> Result<EndorsementKey, TpmError> {
        let kind = self.endorsement_kind()?;
        self.task(|tpm| {
            let key = tpm.endorsement(kind)?;
            let (public, spki) = public_key("TPM2_CreatePrimary", &key)?;
            Ok(EndorsementKey {
                identity: RememberedEndorsement { kind, ek_sha256: ek_sha256(&spki) },
                public,
                name: key.name,
                certificates: tpm.endorsement_certificates(kind, &spki)?,
            })
        })
    }

    /// Persistent handles that keys were taken from on this connection so far, and the one of the storage root key if that will
    /// be.
    pub fn persistent_handles_used(&mut self) -> Result<Vec<u32>, TpmError> {
        self.task(|tpm| {
            if tpm.persistent(Primary::StorageRoot)?.is_some() {
                tpm.note_use(Primary::StorageRoot);
            }
            Ok(tpm.persistent_handles_used())
        })
    }

    /// What stands at the NV indices of EK certificates, DER, whether it fits the chip's keys or not.
    pub fn endorsement_certificates_in_nv(&mut self) -> Result<Vec<(EndorsementKind, Vec<u8>)>, TpmError> {
        self.task(|tpm| {
            let mut found = Vec::new();
            for kind in EndorsementKind::ALL {
                found.extend(tpm.certificate_in_nv(kind)?.map(|certificate| (kind, certificate)));
            }
            Ok(found)
        })
    }

    /// Which EK this chip uses.
    pub(super) fn endorsement_kind(&mut self) -> Result<EndorsementKind, TpmError> {
        if let Some(kind) = self.endorsement {
            return Ok(kind);
        }
        let (choice, remembered) = (self.settings().endorsement, self.settings().remembered);
        let kind = self.task(|tpm| {
            let remembered = match remembered {
                Some(remembered) if choice == EndorsementChoice::Auto && tpm.is_still_there(&remembered)? => {
                    Some(remembered.kind)
                }
                _ => None,
            };
            decide(choice, remembered, |kind| tpm.is_certified(kind))
        })?;
        self.endorsement = Some(kind);
        Ok(kind)
    }
}

impl Connection {
    /// The EK of this kind: at its persistent handle if the key there is the one that a certificate in the chip or our own
    /// memory names, else made from the template. So nobody can change what this device is called by putting another key at
    /// that handle.
    pub fn endorsement(&mut self, kind: EndorsementKind) -> Result<Loaded, TpmError> {
        let primary = Primary::Endorsement(kind);
        let Some(key) = self.persistent(primary)? else { return self.made(primary) };
        if self.is_known(kind, &key)? {
            self.note_use(primary);
            return Ok(key);
        }
        self.made(primary)
    }

    /// Loads `child` under the EK that it was made under, with a session that was used for that and is to be
    /// [renewed](Connection::renew_endorsement_policy) before the EK's next use.
    ///
    /// Tries `kind` first: a chip that got a P-256 certificate later may still have its old AK under the RSA EK.
    pub fn load_under_endorsement(&mut self, kind: EndorsementKind, child: &KeyBlob) -> Result<Endorsed, TpmError> {
        let (kind, ek) = self.endorsement_named(kind, &child.parent)?;
        let session = self.endorsement_session(&ek, kind)?;
        let child = self.load(&ek, session, child)?;
        Ok(Endorsed { kind, ek, session, child })
    }

    /// As [`load_under_endorsement`](Connection::load_under_endorsement), with the parent out of its slot again: three slots
    /// is all there is.
    pub fn load_alone(&mut self, kind: EndorsementKind, child: &KeyBlob) -> Result<Loaded, TpmError> {
        let endorsed = self.load_under_endorsement(kind, child)?;
        self.end_session(endorsed.session)?;
        self.release(&endorsed.ek)?;
        Ok(endorsed.child)
    }

    fn endorsement_named(&mut self, kind: EndorsementKind, name: &[u8]) -> Result<(EndorsementKind, Loaded), TpmError> {
        // The two that older versions of this agent had; RSA of 4096 bits is not made on a mere suspicion.
        let others = [EndorsementKind::P256, EndorsementKind::Rsa2048].into_iter().filter(|other| *other != kind);
        for kind in [kind].into_iter().chain(others) {
            if let Some(ek) = self.named(Primary::Endorsement(kind), name)? {
                return Ok((kind, ek));
            }
        }
        Err(TpmError::ForeignParent)
    }

    /// Whether a certificate in the chip, or our memory, says that this is its endorsement key.
    fn is_known(&mut self, kind: EndorsementKind, key: &Loaded) -> Result<bool, TpmError> {
        let (_, spki) = public_key("TPM2_ReadPublic", key)?;
        let known = RememberedEndorsement { kind, ek_sha256: ek_sha256(&spki) };
        Ok(self.settings().remembered == Some(known) || self.certificate_for(kind, &spki)?.is_some())
    }

    /// Whether the key that this device was known by is this chip's still; another chip, or one that was cleared, is not.
    fn is_still_there(&mut self, remembered: &RememberedEndorsement) -> Result<bool, TpmError> {
        let is_ours = match self.endorsement(remembered.kind) {
            Ok(key) => {
                self.release(&key)?;
                ek_sha256(&public_key("TPM2_CreatePrimary", &key)?.1) == remembered.ek_sha256
            }
            Err(TpmError::Unsupported(_) | TpmError::Refused(_)) => false,
            Err(error) => return Err(error),
        };
        if !is_ours {
            info!(kind = %remembered.kind, "this is not the endorsement key that this device was known by: another chip?");
        }
        Ok(is_ours)
    }

    /// Whether the chip holds a certificate for its key of this kind. Without one in NV no key is made.
    fn is_certified(&mut self, kind: EndorsementKind) -> Result<bool, TpmError> {
        if self.certificate_in_nv(kind)?.is_none() {
            return Ok(false);
        }
        let key = match self.endorsement(kind) {
            Ok(key) => key,
            Err(error @ (TpmError::Unsupported(_) | TpmError::Refused(_))) => {
                warn!(%kind, %error, "the chip has a certificate for a kind of endorsement key that it cannot make");
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let (_, spki) = public_key("TPM2_CreatePrimary", &key)?;
        self.release(&key)?;
        let fits = self.certificate_for(kind, &spki)?.is_some();
        if !fits {
            warn!(%kind, "the certificate in the chip is for another key than its endorsement key and is passed over");
        }
        Ok(fits)
    }
}

/// TPMT_PUBLIC of a key, and the key itself.
fn public_key(command: &'static str, key: &Loaded) -> Result<(Vec<u8>, PublicKey), TpmError> {
    let public = marshal(command, &key.public)?;
    let parsed = Public::parse(&public)
        .map_err(|_| TpmError::Malformed { command, reason: "the endorsement key is not acceptable" })?;
    Ok((public, parsed.key().clone()))
}
