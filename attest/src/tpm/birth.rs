//! An attestation key with the chip's word on how it was made: TPM2_CertifyCreation (Part 3 §18.3), which attestation type "tpm"
//! wants.
//!
//! ```text
//!  through the library: Create, Load, ContextSave ── its connection is closed ──► ContextLoad, CertifyCreation, FlushContext
//! ```
//! The library's Rust binding (tss-esapi 7.7) has no CertifyCreation, and gives creation data only as a structure: the command is
//! sent without it, to the key in a saved context, and the data are marshalled here, and compared with the chip's own hash of them.

use std::thread;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tss_esapi::Error as EsapiError;
use tss_esapi::constants::response_code::Tss2ResponseCode;
use tss_esapi::handles::ObjectHandle;
use tss_esapi::structures::CreateKeyResult;
use tss_esapi::tss2_esys::{TPMS_CONTEXT, TPMS_CREATION_DATA, TPMT_TK_CREATION};

use super::chip::Chip;
use super::connection::{Connection, NO_SESSION};
use super::endorsement_kind::EndorsementKind;
use super::error::TpmError;
use super::key_blob::{KeyBlob, from_base64, to_base64};
use super::patience::patience;
use super::raw::{HEADER_BYTES, RawConnection};
use super::templates;
use crate::structures::{Attest, Attested, Public, Signature};

/// TPM_ST_NO_SESSIONS, TPM_ST_SESSIONS (Part 2 §6.9).
const NO_SESSIONS: [u8; 2] = [0x80, 0x01];
const SESSIONS: [u8; 2] = [0x80, 0x02];
/// Command codes (Part 2 §6.5.2).
const CONTEXT_LOAD: u32 = 0x161;
const CERTIFY_CREATION: u32 = 0x14a;
const FLUSH_CONTEXT: u32 = 0x165;
/// An authorization by empty password: TPM_RS_PW, no nonce, continueSession, no password (Part 1 §19.4); nine bytes.
const BY_EMPTY_PASSWORD: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 1, 0, 0];
/// TPM_ALG_NULL as a signature's scheme: the key's own.
const OWN_SCHEME: [u8; 2] = [0x00, 0x10];
/// TSS2_TCTI_RC_IO_ERROR: what the library says of a connection that breaks.
const BROKEN: u32 = 0x000a_000a;

/// An attestation key, and the chip's word on how it was made. In JSON: base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestationKeyBirth {
    /// The key, wrapped by the chip.
    pub key: KeyBlob,
    /// TPMS_CREATION_DATA (Part 2 §15.1).
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub creation_data: Vec<u8>,
    /// TPMS_ATTEST of TPM2_CertifyCreation, by the key about itself.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE over it.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub signature: Vec<u8>,
}

/// A key that was made, and what is needed to have its making certified.
struct Made {
    key: KeyBlob,
    creation_data: Vec<u8>,
    creation_hash: Vec<u8>,
    ticket: TPMT_TK_CREATION,
    context: TPMS_CONTEXT,
}

impl Chip {
    /// Makes an attestation key of RSA with 2048 bits (go-attestation's first choice), a restricted child of the EK, and has the chip
    /// certify that it made it so.
    pub fn create_certified_attestation_key(&mut self) -> Result<AttestationKeyBirth, TpmError> {
        let kind = self.endorsement_kind()?;
        let made = self.task(|tpm| tpm.make_attestation_key(kind))?;
        self.disconnect();
        let settings = self.settings();
        let tpm = RawConnection::open(&settings.address, settings.command_deadline);
        let tpm = tpm.map_err(|_| broken("TPM2_ContextLoad"))?;
        Raw(tpm).certify(made)
    }
}

impl Connection {
    fn make_attestation_key(&mut self, kind: EndorsementKind) -> Result<Made, TpmError> {
        let ek = self.endorsement(kind)?;
        let session = self.endorsement_session(&ek, kind)?;
        let template = templates::rsa_attestation_key()?;
        let made = self.command("TPM2_Create", (Some(session), None, None), |esys| {
            esys.create(ek.handle, template.clone(), None, None, None, None)
        })?;
        let key = KeyBlob::new(&made.out_public, &made.out_private, ek.name.clone())?;
        self.end_session(session)?;
        self.release(&ek)?;
        let object = ObjectHandle::from(self.load_alone(kind, &key)?.handle);
        let context = self.command("TPM2_ContextSave", NO_SESSION, |esys| esys.context_save(object))?;
        let context = TPMS_CONTEXT::try_from(context).map_err(|error| TpmError::of("TPM2_ContextSave", error))?;
        Made::of(key, made, context)
    }
}

impl Made {
    fn of(key: KeyBlob, made: CreateKeyResult, context: TPMS_CONTEXT) -> Result<Self, TpmError> {
        let (creation_data, creation_hash) =
            (marshal(&made.creation_data.into())?, made.creation_hash.value().to_vec());
        if digest(&SHA256, &creation_data).as_ref() != creation_hash {
            return Err(malformed("TPM2_Create", "its hash is not that of the creation data"));
        }
        let ticket =
            TPMT_TK_CREATION::try_from(made.creation_ticket).map_err(|error| TpmError::of("TPM2_Create", error))?;
        Ok(Self { key, creation_data, creation_hash, ticket, context })
    }

    /// What the chip saved: the library has put notes of its own around it. Source: tpm2-tss, IESYS_CONTEXT_DATA (a word of zeros, then
    /// the chip's context with two bytes of size, then the notes).
    fn saved(&self) -> Option<&[u8]> {
        let library = self.context.contextBlob.buffer.get(..self.context.contextBlob.size.into())?;
        let (size, rest) = library.strip_prefix(&[0; 4])?.split_first_chunk::<2>()?;
        rest.get(..u16::from_be_bytes(*size).into())
    }
}

/// A chip that is asked without the library.
struct Raw(RawConnection);

impl Raw {
    fn certify(mut self, made: Made) -> Result<AttestationKeyBirth, TpmError> {
        let saved = made.saved().ok_or(malformed("TPM2_ContextSave", "not a context as the library saves them"))?;
        let context = [
            &made.context.sequence.to_be_bytes()[..],
            &made.context.savedHandle.to_be_bytes(),
            &made.context.hierarchy.to_be_bytes(),
            &sized(saved),
        ];
        let loaded = self.ask("TPM2_ContextLoad", (NO_SESSIONS, CONTEXT_LOAD), &context.concat())?;
        let handle: [u8; 4] =
            loaded.get(..4).and_then(|handle| handle.try_into().ok()).ok_or(cut("TPM2_ContextLoad"))?;
        let certified = self.certify_loaded(handle, &made);
        // Where there is no resource manager nobody else would.
        let flushed = self.ask("TPM2_FlushContext", (NO_SESSIONS, FLUSH_CONTEXT), &handle);
        let (attest, signature) = certified?;
        flushed?;
        let birth = AttestationKeyBirth { key: made.key, creation_data: made.creation_data, attest, signature };
        birth.check(&made.creation_hash).map(|()| birth)
    }

    /// TPMS_ATTEST and TPMT_SIGNATURE: the key signs about itself.
    fn certify_loaded(&mut self, handle: [u8; 4], made: &Made) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        let ticket = &made.ticket;
        let ticket_digest = ticket.digest.buffer.get(..ticket.digest.size.into()).unwrap_or_default();
        let command = [
            &handle[..],
            &handle,
            &BY_EMPTY_PASSWORD,
            &sized(&[]),
            &sized(&made.creation_hash),
            &OWN_SCHEME,
            &ticket.tag.to_be_bytes(),
            &ticket.hierarchy.to_be_bytes(),
            &sized(ticket_digest),
        ];
        let name = "TPM2_CertifyCreation";
        let answer = self.ask(name, (SESSIONS, CERTIFY_CREATION), &command.concat())?;
        parameters(&answer).ok_or(cut(name))
    }

    /// One command, repeated while the chip puts it off. Returns what follows the header.
    fn ask(&mut self, name: &'static str, (tag, code): ([u8; 2], u32), body: &[u8]) -> Result<Vec<u8>, TpmError> {
        let size =
            u32::try_from(HEADER_BYTES + body.len()).map_err(|_| TpmError::Argument("the command is too long"))?;
        let command = [&tag[..], &size.to_be_bytes(), &code.to_be_bytes(), body].concat();
        for tries in 0.. {
            let answer = self.0.transmit(&command).map_err(|_| broken(name))?;
            let code = answer.get(6..HEADER_BYTES).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
            let error = match code.ok_or(cut(name))? {
                0 => return Ok(answer[HEADER_BYTES..].to_vec()),
                code => TpmError::of(name, EsapiError::Tss2Error(Tss2ResponseCode::from(code))),
            };
            let pause = error.failure().and_then(|f| patience(f.tpm_code())).and_then(|patience| patience.pause(tries));
            thread::sleep(pause.ok_or(error)?);
        }
        unreachable!("patience ends")
    }
}

impl AttestationKeyBirth {
    /// Refuses what no server would believe, before one is asked.
    fn check(&self, creation_hash: &[u8]) -> Result<(), TpmError> {
        let wrong = |reason| malformed("TPM2_CertifyCreation", reason);
        let public = Public::parse(&self.key.public).map_err(|_| wrong("the key's public part is damaged"))?;
        let attest = Attest::parse(&self.attest).map_err(|_| wrong("not an attestation"))?;
        let signature = Signature::parse(&self.signature).map_err(|_| wrong("its signature is of no kind of ours"))?;
        match attest.attested() {
            Attested::Creation { name, hash } if name == public.name() && hash == creation_hash => {}
            _ => return Err(wrong("not about the key that was made")),
        }
        match signature.is_by(public.key(), &self.attest) {
            true => Ok(()),
            false => Err(wrong("the attestation key's signature does not verify")),
        }
    }
}

/// TPMS_CREATION_DATA of a key that no PCRs were asked for with.
fn marshal(data: &TPMS_CREATION_DATA) -> Result<Vec<u8>, TpmError> {
    if data.pcrSelect.count != 0 {
        return Err(malformed("TPM2_Create", "its creation data name PCRs"));
    }
    let held = |buffer: &[u8], size: u16| sized(buffer.get(..size.into()).unwrap_or_default());
    Ok([
        &0u32.to_be_bytes()[..],
        &held(&data.pcrDigest.buffer, data.pcrDigest.size),
        &[data.locality],
        &data.parentNameAlg.to_be_bytes(),
        &held(&data.parentName.name, data.parentName.size),
        &held(&data.parentQualifiedName.name, data.parentQualifiedName.size),
        &held(&data.outsideInfo.buffer, data.outsideInfo.size),
    ]
    .concat())
}

/// A TPM2B. Whatever is put into one here is shorter than 64 KiB.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// Of an answer with sessions: the size of its parameters, TPM2B_ATTEST, and the signature up to the sessions.
fn parameters(answer: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (size, rest) = answer.split_first_chunk::<4>()?;
    let parameters = rest.get(..u32::from_be_bytes(*size).try_into().ok()?)?;
    let (size, rest) = parameters.split_first_chunk::<2>()?;
    let (attest, signature) = rest.split_at_checked(u16::from_be_bytes(*size).into())?;
    Some((attest.to_vec(), signature.to_vec()))
}

fn malformed(command: &'static str, reason: &'static str) -> TpmError {
    TpmError::Malformed { command, reason }
}

fn cut(command: &'static str) -> TpmError {
    malformed(command, "it is cut short")
}

fn broken(command: &'static str) -> TpmError {
    TpmError::of(command, EsapiError::Tss2Error(Tss2ResponseCode::from(BROKEN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_and_a_cut_one_refused() {
        let answer = [0, 0, 0, 7, 0, 2, 8, 9, 1, 2, 3, /* the session */ 0, 0, 1, 0, 0];
        assert_eq!(parameters(&answer), Some((vec![8, 9], vec![1, 2, 3])));
        for length in 0..11 {
            assert_eq!(parameters(&answer[..length]), None, "{length}");
        }
        assert_eq!(parameters(&[0, 0, 0, 3, 0, 9, 8]), None, "a size that is not there");
    }
}
