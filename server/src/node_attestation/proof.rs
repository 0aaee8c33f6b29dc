//! What a node was proven by, and what that says of who else it may be.

use ironroot_api::SpiffeId;

use super::join_token::UnspentToken;
use super::together::Enrolment;
use crate::devices::ProvenDevice;

/// What a node was proven by. The change that stores its agent looks at it once more.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A join token, which is spent with that.
    JoinToken(UnspentToken),
    /// A TPM, of which the device registry is to know.
    Tpm(ProvenDevice),
    /// A TPM whose clock and boot nobody has proven: the device registry is asked whether it is banned, and told nothing.
    Chip {
        /// SHA-256 of the endorsement key's SubjectPublicKeyInfo.
        ek_sha256: [u8; 32],
        /// Of what the authority has signed of a certificate for one of its keys, if there was one.
        certificate_sha256: Option<[u8; 32]>,
        /// See [`Proof::Certificate`].
        other_ids: Vec<SpiffeId>,
    },
    /// A certificate that somebody gave the device: SHA-256 of what its authority has signed.
    Certificate {
        /// Of what the authority has signed of it (the TBSCertificate, DER).
        sha256: [u8; 32],
        /// What the agent would be called if the certificate's signature were written in another way: bans that were taken over from
        /// SPIRE say no more than an ID.
        other_ids: Vec<SpiffeId>,
    },
    /// An X509-SVID of this trust domain that is exchanged for an agent's.
    Svid {
        /// As of a certificate.
        sha256: [u8; 32],
        /// Its serial number, decimal: whether it was fetched through an agent that is banned.
        serial: String,
    },
    /// That a host answers at its name.
    Host {
        /// Whether that counts once: while the agent is there, nobody else is it.
        first_use: bool,
    },
    /// A join token beside other proofs.
    Enrolled(Enrolment),
    /// Each of these.
    All(Vec<Proof>),
}

impl Proof {
    pub(super) fn is_first_use(&self) -> bool {
        match self {
            Self::Host { first_use } => *first_use,
            Self::All(proofs) => proofs.iter().any(Self::is_first_use),
            _ => false,
        }
    }

    pub(super) fn device(&self) -> Option<&ProvenDevice> {
        match self {
            Self::Tpm(device) => Some(device),
            Self::All(proofs) => proofs.iter().find_map(Self::device),
            Self::JoinToken(_)
            | Self::Chip { .. }
            | Self::Certificate { .. }
            | Self::Svid { .. }
            | Self::Host { .. }
            | Self::Enrolled(_) => None,
        }
    }

    pub(super) fn ek_sha256(&self) -> Option<[u8; 32]> {
        match self {
            Self::Tpm(device) => Some(device.ek_sha256()),
            Self::Chip { ek_sha256, .. } => Some(*ek_sha256),
            Self::All(proofs) => proofs.iter().find_map(Self::ek_sha256),
            Self::JoinToken(_)
            | Self::Certificate { .. }
            | Self::Svid { .. }
            | Self::Host { .. }
            | Self::Enrolled(_) => None,
        }
    }

    pub(super) fn certificate_sha256(&self) -> Option<[u8; 32]> {
        match self {
            Self::Chip { certificate_sha256, .. } => *certificate_sha256,
            Self::Certificate { sha256, .. } | Self::Svid { sha256, .. } => Some(*sha256),
            Self::All(proofs) => proofs.iter().find_map(Self::certificate_sha256),
            Self::JoinToken(_) | Self::Tpm(_) | Self::Host { .. } | Self::Enrolled(_) => None,
        }
    }

    /// What its agent would be called if the signature of its certificate were written in another way.
    pub fn other_ids(&self) -> Vec<&SpiffeId> {
        match self {
            Self::Chip { other_ids, .. } | Self::Certificate { other_ids, .. } => other_ids.iter().collect(),
            Self::All(proofs) => proofs.iter().flat_map(Self::other_ids).collect(),
            Self::JoinToken(_) | Self::Tpm(_) | Self::Svid { .. } | Self::Host { .. } | Self::Enrolled(_) => Vec::new(),
        }
    }
}

/// `id` with the fingerprint in it, if it is there, replaced by each of `others`.
pub(super) fn renamed(id: &SpiffeId, fingerprint: &str, others: &[String]) -> Vec<SpiffeId> {
    let others = others.iter().map(|other| id.as_str().replace(fingerprint, other));
    others.filter_map(|other| SpiffeId::parse(&other).ok()).filter(|other| other != id).collect()
}
