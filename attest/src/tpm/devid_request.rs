//! A request for a DevID certificate, as the TCG has it: what a CA needs to see that the key is in a genuine chip.
//!
//! Source: TCG TPM 2.0 Keys for Device Identity and Attestation 1.1, §13.1 (TCG-CSR-IDEVID).

use crate::structures::Hash;

/// structVer of both structures.
const VERSION: u32 = 0x0000_0100;

/// TCG_CSR_IDEVID_CONTENT, as far as an agent can fill it in: its library cannot certify the creation of a key, so what proves
/// the attestation key beyond its own public part is left to a challenge (TPM2_MakeCredential).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevIdRequest {
    /// prodModel.
    pub product_model: String,
    /// prodSerial.
    pub product_serial: String,
    /// ekCert, DER.
    pub ek_certificate: Vec<u8>,
    /// attestPub: TPMT_PUBLIC.
    pub attestation_key: Vec<u8>,
    /// signingPub: TPMT_PUBLIC of the DevID key.
    pub devid_key: Vec<u8>,
    /// sgnCertifyInfo: TPMS_ATTEST of the attestation key over the DevID key.
    pub certify: Vec<u8>,
    /// sgnCertifyInfoSignature: TPMT_SIGNATURE.
    pub certify_signature: Vec<u8>,
}

impl DevIdRequest {
    /// TCG_CSR_IDEVID_CONTENT: what the DevID key signs.
    pub fn contents(&self) -> Vec<u8> {
        // prodCaData, bootEvntLog; atCreateTkt, atCertifyInfo and its signature; pad.
        const NONE: &[u8] = &[];
        let fields: [&[u8]; 13] = [
            self.product_model.as_bytes(),
            self.product_serial.as_bytes(),
            NONE,
            NONE,
            &self.ek_certificate,
            &self.attestation_key,
            NONE,
            NONE,
            NONE,
            &self.devid_key,
            &self.certify,
            &self.certify_signature,
            NONE,
        ];
        let sizes = fields.iter().flat_map(|field| (field.len() as u32).to_be_bytes());
        let hashed: Vec<u8> = sizes.chain(fields.iter().flat_map(|field| field.iter().copied())).collect();
        let hash = Hash::Sha256.digest(&[&hashed]);
        let head = [VERSION, u32::from(Hash::Sha256.id()), hash.as_ref().len() as u32].map(u32::to_be_bytes).concat();
        [&head, hash.as_ref(), &hashed].concat()
    }

    /// TCG_CSR_IDEVID. `signature`: TPMT_SIGNATURE of the DevID key over [`contents`](Self::contents).
    pub fn signed(&self, signature: &[u8]) -> Vec<u8> {
        let contents = self.contents();
        let head = [VERSION, contents.len() as u32, signature.len() as u32].map(u32::to_be_bytes).concat();
        [&head[..], &contents, signature].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out by hand from the table of the standard.
    #[test]
    fn a_request_is_the_standards_byte_for_byte() {
        let request = DevIdRequest {
            product_model: "M1".into(),
            product_serial: "SN1".into(),
            ek_certificate: vec![0x30, 0x00],
            attestation_key: vec![0xa1],
            devid_key: vec![0xd1],
            certify: vec![0xc1, 0xc2],
            certify_signature: vec![0x51],
        };
        let sizes: [u32; 13] = [2, 3, 0, 0, 2, 1, 0, 0, 0, 1, 2, 1, 0];
        let hashed = [&sizes.map(u32::to_be_bytes).concat()[..], b"M1SN1\x30\x00\xa1\xd1\xc1\xc2\x51"].concat();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &hashed);
        let head = [0, 0, 1, 0, 0, 0, 0, 0x0b, 0, 0, 0, 32];
        let contents = [&head[..], digest.as_ref(), &hashed].concat();
        assert_eq!(request.contents(), contents);
        let size = u8::try_from(contents.len()).expect("short");
        assert_eq!(
            request.signed(&[7, 8]),
            [&[0, 0, 1, 0, 0, 0, 0, size, 0, 0, 0, 2][..], &contents, &[7, 8]].concat()
        );
    }
}
