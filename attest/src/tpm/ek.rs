//! The endorsement key: who this chip is.

use der::{Reader, SliceReader};
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;

use super::connection::{Chip, Connection};
use super::key_blob::marshal;
use super::sessions::{Encrypted, Loaded};
use super::{KeyBlob, TpmError, templates};

/// First NV index of the EK Credential Profile's certificates (§2.2.1.4, low range).
const FIRST_CERTIFICATE_INDEX: u32 = 0x01c0_0000;
/// NV indices with the certificates of issuing CAs, for makers whose CAs live on the chip (§2.2.1.5.2).
const CHAIN_INDICES: std::ops::RangeInclusive<u32> = 0x01c0_0100..=0x01c0_01ff;
/// Longest certificate or chain read from NV, bytes. Real chips hold 1 to 6 KiB.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Certificates handed out at most, EK and chain together.
const MAX_CERTIFICATES: usize = 8;

/// Which of the two EKs that manufacturers certify for every chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndorsementKind {
    /// Template L-2. Ten times faster than RSA on real chips.
    P256,
    /// Template L-1.
    Rsa2048,
}

impl EndorsementKind {
    /// Where the profile puts the certificate (§2.2.1.4).
    const fn certificate_index(self) -> u32 {
        match self {
            EndorsementKind::P256 => 0x01c0_000a,
            EndorsementKind::Rsa2048 => 0x01c0_0002,
        }
    }

    const fn other(self) -> Self {
        match self {
            EndorsementKind::P256 => EndorsementKind::Rsa2048,
            EndorsementKind::Rsa2048 => EndorsementKind::P256,
        }
    }
}

/// The chip's endorsement key and what its maker wrote about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndorsementKey {
    /// TPMT_PUBLIC (Part 2 §12.2.4).
    pub public: Vec<u8>,
    /// DER certificates from the chip's NV: the EK's first, then those of CAs on the chip. Empty if the maker wrote none.
    pub certificates: Vec<Vec<u8>>,
}

impl Chip {
    /// The endorsement key: P-256 (template L-2) when its certificate is in NV or there is none for RSA either, else RSA-2048
    /// (template L-1). A nonce or template of the maker's own in NV is ignored, as by other software.
    pub fn endorsement_key(&mut self) -> Result<EndorsementKey, TpmError> {
        let kind = self.endorsement_kind()?;
        self.task(|tpm| {
            let key = tpm.endorsement(kind)?;
            Ok(EndorsementKey {
                public: marshal("TPM2_CreatePrimary", &key.public)?,
                certificates: tpm.endorsement_certificates(kind)?,
            })
        })
    }

    /// Which EK this chip uses.
    pub(super) fn endorsement_kind(&mut self) -> Result<EndorsementKind, TpmError> {
        if let Some(kind) = self.endorsement {
            return Ok(kind);
        }
        let indices = self.task(|tpm| tpm.nv_indices(FIRST_CERTIFICATE_INDEX))?;
        let has_certificate = |kind: EndorsementKind| indices.contains(&kind.certificate_index());
        let only_rsa = has_certificate(EndorsementKind::Rsa2048) && !has_certificate(EndorsementKind::P256);
        let kind = if only_rsa { EndorsementKind::Rsa2048 } else { EndorsementKind::P256 };
        self.endorsement = Some(kind);
        Ok(kind)
    }
}

impl Connection {
    /// Creates the EK again in a slot.
    pub fn endorsement(&mut self, kind: EndorsementKind) -> Result<Loaded, TpmError> {
        self.create_primary(Hierarchy::Endorsement, &templates::endorsement_key(kind)?)
    }

    /// Loads `ak` under the EK that it was made under, with a session that is salted to that EK and needs
    /// [`authorize_endorsement`](Connection::authorize_endorsement) before the EK's next use.
    ///
    /// Tries `kind` first: a chip that got a P-256 certificate later still has its old AK under the RSA EK.
    pub fn load_under_endorsement(
        &mut self,
        kind: EndorsementKind,
        ak: &KeyBlob,
    ) -> Result<(Loaded, AuthSession, Loaded), TpmError> {
        let ek = self.endorsement_named(kind, &ak.parent)?;
        let session = self.policy_session(&ek, Encrypted::Both)?;
        self.authorize_endorsement(session)?;
        let ak = self.load(&ek, session, ak)?;
        Ok((ek, session, ak))
    }

    fn endorsement_named(&mut self, kind: EndorsementKind, name: &[u8]) -> Result<Loaded, TpmError> {
        for kind in [kind, kind.other()] {
            let ek = self.endorsement(kind)?;
            if ek.name == name {
                return Ok(ek);
            }
            self.flush(ek.handle.into())?;
        }
        Err(TpmError::ForeignParent)
    }

    fn endorsement_certificates(&mut self, kind: EndorsementKind) -> Result<Vec<Vec<u8>>, TpmError> {
        let indices = self.nv_indices(FIRST_CERTIFICATE_INDEX)?;
        if !indices.contains(&kind.certificate_index()) {
            return Ok(Vec::new());
        }
        let leaf = self.nv_read_all(kind.certificate_index(), MAX_CERTIFICATE_BYTES)?;
        // The maker may have defined the index longer than the certificate: the first one counts, padding does not.
        let mut certificates: Vec<_> = split_der(&leaf).into_iter().take(1).collect();
        let mut chain = Vec::new();
        for index in indices.into_iter().filter(|index| CHAIN_INDICES.contains(index)) {
            let room = MAX_CERTIFICATE_BYTES.saturating_sub(chain.len());
            chain.extend(self.nv_read_all(index, room)?);
        }
        certificates.extend(split_der(&chain));
        certificates.truncate(MAX_CERTIFICATES);
        Ok(certificates)
    }
}

/// The DER SEQUENCEs at the start of `bytes`, up to the first byte that begins none (padding: 0x00 or 0xff).
fn split_der(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while rest.first() == Some(&0x30) {
        let Ok(sequence) = SliceReader::new(rest).and_then(|mut reader| reader.tlv_bytes()) else { break };
        found.push(sequence.to_vec());
        rest = &rest[sequence.len()..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_end_where_the_padding_starts() {
        let one = [0x30, 0x03, 0x02, 0x01, 0x05];
        let two = [0x30, 0x00];
        let padded = [one.as_slice(), &two, &[0xff; 40]].concat();
        assert_eq!(split_der(&padded), [one.to_vec(), two.to_vec()]);
        assert_eq!(split_der(&[0; 16]), Vec::<Vec<u8>>::new());
        assert_eq!(split_der(&[0x30, 0x82, 0xff, 0xff, 0x00]), Vec::<Vec<u8>>::new());
    }
}
