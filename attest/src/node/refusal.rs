//! Why a node's evidence is not accepted: the peer's fault, or its TPM's.

use std::fmt;

use thiserror::Error;

use super::tpm2::{ClockReading, PcrHash, PcrSelection};
use crate::ek_certificate::EkCertificateError;
use crate::event_log::EventLogError;
use crate::ima::ImaError;
use crate::structures::{KeyError, PublicError, StructureError};

/// A reason to say no. One variant per reason; the text tells an operator what was wrong with the device's evidence.
///
/// A refusal is the whole story in one clause: what it wraps is part of the text and not a source, or logs would say it twice.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum Refusal {
    /// The JSON is over the cap; nothing was parsed.
    #[error("the message is {bytes} bytes, at most {limit} are accepted")]
    MessageTooLong { bytes: usize, limit: usize },
    /// Not the JSON of this protocol, or a field over its cap.
    #[error("the message is malformed: {0}")]
    MessageFormat(String),
    /// A version that this build does not speak.
    #[error("the message has version {0}, this build speaks version 1")]
    MessageVersion(u32),
    /// A TPM structure is not what TPM 2.0 Part 2 says, or uses an algorithm that is not accepted.
    #[error("the {part} is not acceptable: {error}")]
    Structure {
        part: Part,
        /// Which rule of the TPM's encoding is broken.
        error: StructureError,
    },
    /// A public key that is too weak or no valid key at all.
    #[error("the {part} is not acceptable: {error}")]
    Key {
        part: Part,
        /// Which strength or form it lacks.
        error: KeyError,
    },

    /// The key offered as endorsement key is not a restricted decryption key fixed to one TPM.
    #[error(
        "the endorsement key has attributes {attributes:#010x}: it is not a restricted decryption key made in a TPM"
    )]
    NotAnEndorsementKey { attributes: u32 },
    /// The EK is not the enrolled one.
    #[error("the endorsement key is not the enrolled one")]
    NotEnrolled,
    /// Admission by manufacturer needs a certificate and there is none.
    #[error("the device sent no endorsement key certificate, and admission is by manufacturer")]
    NoEkCertificate,
    /// The certificate sent is for another key (attack: a genuine certificate beside an attacker's key).
    #[error("the endorsement key certificate is for another key than the endorsement key")]
    EkCertificateOfAnotherKey,
    /// The certificate is not an EK certificate of a trusted manufacturer.
    #[error("the endorsement key certificate is not acceptable: {0}")]
    EkCertificate(EkCertificateError),

    /// The AK lacks an attribute without which its word is worth nothing, or has one that it must not have.
    #[error(
        "the attestation key has attributes {attributes:#010x}: it is not a restricted signing key made in and fixed to a TPM"
    )]
    NotAnAttestationKey { attributes: u32 },
    /// A restricted signing key names its signature scheme; this one does not.
    #[error("the attestation key has no fixed signature scheme")]
    AkWithoutScheme,
    /// The credential cannot be made for this EK (a key that passed the checks but that the library refuses).
    #[error("no credential can be made for this endorsement key")]
    Credential,
    /// The expectation names a trust domain that is longer than a trust domain can be.
    #[error("the trust domain is longer than 255 bytes")]
    TrustDomain,

    /// The answer came too late, or the clock of the server went back.
    #[error("the challenge was answered after {seconds} s, at most {limit} s are accepted")]
    ChallengeExpired {
        /// Seconds between challenge and answer.
        seconds: i64,
        limit: i64,
    },
    /// The credential was not activated: this is not the TPM that the EK belongs to, or the AK is not in it.
    #[error("the activation secret is wrong: the attestation key is not in the TPM of this endorsement key")]
    WrongSecret,
    /// The AK did not sign this.
    #[error("the signature of the {0} is not the attestation key's")]
    Signature(Part),
    /// Signed with another algorithm than the AK's own.
    #[error("the {0} uses another algorithm than the attestation key")]
    SignatureAlgorithm(Part),
    /// TPM_GENERATED is missing: a TPM did not make this.
    #[error("the {0} was not made by a TPM")]
    NotTpmGenerated(Part),
    /// A quote where a certify is due, or the like.
    #[error("the {0} is an attestation of another kind")]
    AttestationKind(Part),
    /// extraData is not the binding: replayed, relayed, or made for another trust domain or certificate request.
    #[error("the {0} was made for another challenge, trust domain or certificate request")]
    AnotherBinding(Part),
    /// qualifiedSigner is not the name of this AK under this EK: its counters and firmware version may be disguised.
    #[error("the signer of the {0} is not a child of this endorsement key")]
    ForeignSigner(Part),
    /// Fewer, more, or other PCRs than asked for, or another bank.
    #[error("the quote is not over PCRs {expected} of the {bank} bank alone")]
    PcrSelection { bank: PcrHash, expected: PcrSelection },
    /// None of the PCR banks that this server accepts is active in the chip.
    #[error(
        "the device's TPM has the PCR banks {offered} active, this server accepts {accepted}: activate one of those in the \
         device's firmware settings, or name its bank in pcr_banks of NodeAttestor \"tpm2\" \
         (sha1 only if its weakness is acceptable)"
    )]
    PcrBank { offered: String, accepted: String },
    /// PCR values missing, too many, out of order, or of another length.
    #[error("the PCR values sent are not those of PCRs {expected}")]
    PcrValues { expected: PcrSelection },
    /// The values sent are not the quoted ones.
    #[error("the PCR values sent are not the quoted ones")]
    PcrDigest,

    /// Policy wants a log of what was booted.
    #[error(
        "the device sent no boot log, and the server requires one: its firmware must write one and its agent be able to read it"
    )]
    NoEventLog,
    /// The log of what was booted is not the quoted registers' log.
    #[error("the boot log is not acceptable: {0}")]
    EventLog(EventLogError),
    /// Policy wants a list of measured files.
    #[error(
        "the device sent no list of the files it measured (IMA), and the server requires one: its kernel must be started with an IMA policy and its agent be able to read the list"
    )]
    NoImaLog,
    /// The list of measured files is not the quoted register's.
    #[error("the list of measured files (IMA) is not acceptable: {0}")]
    Ima(ImaError),

    /// Policy wants the agent's key in the TPM.
    #[error("the agent's key is not certified to be in the TPM, and the server requires it")]
    KeyNotResident,
    /// The certified key can leave the TPM, was not made there, or is not a signing key.
    #[error(
        "the certified key has attributes {attributes:#010x}: it is not a signing key made in and fixed to the TPM"
    )]
    NotAResidentKey { attributes: u32 },
    /// The certify structure names another object.
    #[error("the certified key is another one than the key sent")]
    CertifiedAnotherKey,
    /// The certificate request is for a key other than the certified one.
    #[error("the certificate request is for another key than the certified one")]
    RequestForAnotherKey,

    /// Fewer resets than already seen.
    #[error(
        "the TPM's reset counter went back from {} to {}: a copied, rolled back or cleared TPM; \
         if it was cleared on purpose, delete the device and import or approve it again", seen.reset_count, now.reset_count
    )]
    ResetCountWentBack { seen: ClockReading, now: ClockReading },
    /// Fewer restarts than already seen since the same reset.
    #[error(
        "the TPM's restart counter went back from {} to {}: a copied or rolled back TPM",
        seen.restart_count,
        now.restart_count
    )]
    RestartCountWentBack { seen: ClockReading, now: ClockReading },
    /// The clock went back further than a power cut explains.
    #[error(
        "the TPM's clock went back from {} ms to {} ms: a copied or rolled back TPM",
        seen.clock_ms,
        now.clock_ms
    )]
    ClockWentBack { seen: ClockReading, now: ClockReading },
}

impl Refusal {
    /// The reading of a chip that was proven and whose counters or clock went back. It speaks for a copy, a rolled back or a
    /// cleared chip.
    pub fn contradicting_clock(&self) -> Option<ClockReading> {
        match self {
            Self::ResetCountWentBack { now, .. }
            | Self::RestartCountWentBack { now, .. }
            | Self::ClockWentBack { now, .. } => Some(*now),
            _ => None,
        }
    }

    /// Whether it says nothing about the node: the message is none of this protocol.
    pub fn is_of_the_message(&self) -> bool {
        matches!(self, Self::MessageTooLong { .. } | Self::MessageFormat(_) | Self::MessageVersion(_))
    }

    /// A structure that does not parse; what a TPM did not make and what attests to something else have their own names.
    pub(super) fn of_structure(part: Part, error: StructureError) -> Self {
        match error {
            StructureError::Magic(_) => Refusal::NotTpmGenerated(part),
            StructureError::AttestationType(_) => Refusal::AttestationKind(part),
            error => Refusal::Structure { part, error },
        }
    }

    /// A public area that does not parse, or whose key is weak.
    pub(super) fn of_public(part: Part, error: PublicError) -> Self {
        match error {
            PublicError::Structure(error) => Refusal::Structure { part, error },
            PublicError::Key(error) => Refusal::Key { part, error },
        }
    }
}

impl From<EkCertificateError> for Refusal {
    fn from(error: EkCertificateError) -> Self {
        Refusal::EkCertificate(error)
    }
}

/// A part of the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// TPMT_PUBLIC of the EK.
    EndorsementKey,
    /// TPMT_PUBLIC of the AK.
    AttestationKey,
    /// TPMT_PUBLIC of the certified key.
    CertifiedKey,
    /// TPMS_ATTEST and TPMT_SIGNATURE of TPM2_Quote.
    Quote,
    /// TPMS_ATTEST and TPMT_SIGNATURE of TPM2_Certify.
    Certify,
    /// TPMS_ATTEST and TPMT_SIGNATURE of TPM2_CertifyCreation.
    Creation,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::EndorsementKey => "endorsement key",
            Part::AttestationKey => "attestation key",
            Part::CertifiedKey => "certified key",
            Part::Quote => "quote",
            Part::Certify => "key certification",
            Part::Creation => "attestation key's creation",
        })
    }
}
