//! A quote: what booted, signed by the AK.

use tss_esapi::structures::{Attest, AttestInfo, Data, SignatureScheme};

use super::chip::Chip;
use super::connection::{Connection, EMPTY_PASSWORD};
use super::error::TpmError;
use super::key_blob::KeyBlob;
use super::key_blob::marshal;
use super::loaded::Loaded;
use super::pcr::{self, PcrValues};
use super::signing_key::check_attestation;
use crate::node::tpm2::{PcrHash, PcrSelection};

/// How often values and quote are taken anew when a PCR changed between them.
const TRIES: usize = 4;

/// PCR values and the AK's signature over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// TPMS_ATTEST (Part 2 §10.12.12), the bytes that are signed.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE (Part 2 §11.3.4).
    pub signature: Vec<u8>,
    /// PCR index and value, ascending: those in the quote.
    pub pcr_values: PcrValues,
}

impl Chip {
    /// Quotes `pcrs` of `bank` with `qualifying_data` as extraData. The values belong to the quote: when a PCR
    /// moves in between, both are taken again.
    pub fn quote(
        &mut self,
        ak: &KeyBlob,
        qualifying_data: &[u8; 32],
        bank: PcrHash,
        pcrs: PcrSelection,
    ) -> Result<Quote, TpmError> {
        let kind = self.endorsement_kind()?;
        self.task(|tpm| {
            let loaded = tpm.load_alone(kind, ak)?;
            for _ in 0..TRIES {
                if let Some(quote) = tpm.quote_once(ak, &loaded, qualifying_data, (bank, pcrs))? {
                    return Ok(quote);
                }
            }
            Err(TpmError::RestlessPcrs)
        })
    }
}

impl Connection {
    /// None if a PCR changed between reading and quoting.
    fn quote_once(
        &mut self,
        ak: &KeyBlob,
        loaded: &Loaded,
        qualifying_data: &[u8; 32],
        (bank, pcrs): (PcrHash, PcrSelection),
    ) -> Result<Option<Quote>, TpmError> {
        let pcr_values = self.read_pcrs(bank, pcrs)?;
        let (selection, extra) = (pcr::selection_list(bank, pcrs)?, extra_data(qualifying_data));
        let (attest, signature) = self.command("TPM2_Quote", EMPTY_PASSWORD, |esys| {
            esys.quote(loaded.handle, extra.clone(), SignatureScheme::Null, selection.clone())
        })?;
        if !quotes(&attest, bank, pcrs)? {
            // An inactive bank is quoted without complaint, as nothing.
            return Err(self.bank_missing(bank, pcrs));
        }
        if quoted_digest(&attest)? != pcr::digest(&pcr_values) {
            return Ok(None);
        }
        let quote = Quote {
            attest: marshal("TPM2_Quote", &attest)?,
            signature: marshal("TPM2_Quote", &signature)?,
            pcr_values,
        };
        check_attestation("TPM2_Quote", ak, &quote.attest, &signature)?;
        Ok(Some(quote))
    }
}

/// `bytes` as the library takes qualifying data.
pub fn extra_data(bytes: &[u8; 32]) -> Data {
    Data::try_from(bytes.as_slice()).expect("TPM2B_DATA holds at least a SHA-512 digest")
}

fn quotes(attest: &Attest, bank: PcrHash, pcrs: PcrSelection) -> Result<bool, TpmError> {
    match attest.attested() {
        AttestInfo::Quote { info } => Ok(pcr::selected(bank, info.pcr_selection()).into_iter().eq(pcrs.indices())),
        _ => Err(TpmError::Malformed { command: "TPM2_Quote", reason: "not a quote" }),
    }
}

fn quoted_digest(attest: &Attest) -> Result<[u8; 32], TpmError> {
    let AttestInfo::Quote { info } = attest.attested() else {
        return Err(TpmError::Malformed { command: "TPM2_Quote", reason: "not a quote" });
    };
    let digest = info.pcr_digest().value().try_into();
    digest.map_err(|_| TpmError::Malformed { command: "TPM2_Quote", reason: "the PCR digest is not SHA-256" })
}
