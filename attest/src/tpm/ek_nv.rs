//! Endorsement key certificates in the chip's NV memory. What cannot be read, or is no certificate of the key, is as good as
//! none: anybody with the owner's authorization can define these indices, and makers leave some unwritten.

use der::{Reader, SliceReader};
use tracing::warn;

use super::connection::Connection;
use super::endorsement_kind::EndorsementKind;
use super::error::TpmError;
use crate::ek_certificate::EkCertificate;
use crate::structures::PublicKey;

/// First NV index of the EK Credential Profile's certificates (§2.2.1.4, low range).
const FIRST_CERTIFICATE_INDEX: u32 = 0x01c0_0000;
/// NV indices with the certificates of issuing CAs, for makers whose CAs live on the chip (§2.2.1.5.2).
const CHAIN_INDICES: std::ops::RangeInclusive<u32> = 0x01c0_0100..=0x01c0_01ff;
/// Longest certificate or chain read from NV, bytes. Real chips hold 1 to 6 KiB.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Certificates handed out at most, EK and chain together.
const MAX_CERTIFICATES: usize = 8;

impl Connection {
    /// The certificate for `key`, the EK of this kind, and those of CAs on the chip; empty if there is none for it.
    pub fn endorsement_certificates(
        &mut self,
        kind: EndorsementKind,
        key: &PublicKey,
    ) -> Result<Vec<Vec<u8>>, TpmError> {
        let Some(certificate) = self.certificate_for(kind, key)? else { return Ok(Vec::new()) };
        let mut certificates = vec![certificate];
        let mut chain = Vec::new();
        for index in self.certificate_indices()?.into_iter().filter(|index| CHAIN_INDICES.contains(index)) {
            let room = MAX_CERTIFICATE_BYTES.saturating_sub(chain.len());
            chain.extend(self.read_if_possible(index, room)?.unwrap_or_default());
        }
        certificates.extend(split_der(&chain));
        certificates.truncate(MAX_CERTIFICATES);
        Ok(certificates)
    }

    /// The certificate in the chip for `key`, the EK of this kind.
    pub fn certificate_for(&mut self, kind: EndorsementKind, key: &PublicKey) -> Result<Option<Vec<u8>>, TpmError> {
        Ok(self.certificate_in_nv(kind)?.filter(|certificate| fits(certificate, key)))
    }

    /// What looks like a certificate at the index of this kind; read once.
    pub fn certificate_in_nv(&mut self, kind: EndorsementKind) -> Result<Option<Vec<u8>>, TpmError> {
        if let Some((_, certificate)) = self.certificates_read().endorsement.iter().find(|(read, _)| *read == kind) {
            return Ok(certificate.clone());
        }
        let certificate = self.read_certificate(kind)?;
        self.certificates_read().endorsement.push((kind, certificate.clone()));
        Ok(certificate)
    }

    fn read_certificate(&mut self, kind: EndorsementKind) -> Result<Option<Vec<u8>>, TpmError> {
        let index = kind.certificate_index();
        if !self.certificate_indices()?.contains(&index) {
            return Ok(None);
        }
        let Some(content) = self.read_if_possible(index, MAX_CERTIFICATE_BYTES)? else { return Ok(None) };
        // The maker may have defined the index longer than the certificate: the first one counts, padding does not.
        let certificate = split_der(&content).into_iter().next();
        if certificate.is_none() {
            warn!(
                index = format_args!("{index:#x}"),
                "the EK certificate index holds no certificate and is passed over"
            );
        }
        Ok(certificate)
    }

    fn certificate_indices(&mut self) -> Result<Vec<u32>, TpmError> {
        if let Some(indices) = &self.certificates_read().indices {
            return Ok(indices.clone());
        }
        let indices = self.nv_indices(FIRST_CERTIFICATE_INDEX)?;
        self.certificates_read().indices = Some(indices.clone());
        Ok(indices)
    }

    /// What stands at `index`; none, and a line in the log, if the chip does not give it.
    fn read_if_possible(&mut self, index: u32, limit: usize) -> Result<Option<Vec<u8>>, TpmError> {
        match self.nv_read_all(index, limit) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.is_about_the_connection() => Err(error),
            Err(error @ (TpmError::Busy(_) | TpmError::Full(_))) => Err(error),
            Err(error) => {
                warn!(index = format_args!("{index:#x}"), %error, "a certificate in the chip cannot be read and is passed over");
                Ok(None)
            }
        }
    }
}

/// Whether `certificate` is for `key`. One in an encoding that we do not read fits if it holds the key's bytes: a server that
/// knows the key needs no more.
fn fits(certificate: &[u8], key: &PublicKey) -> bool {
    match EkCertificate::parse(certificate) {
        Ok(certificate) => certificate.key() == key,
        Err(_) => {
            let numbers = key.numbers();
            certificate.windows(numbers.len()).any(|window| window == numbers)
        }
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
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

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

    #[test]
    fn a_certificate_fits_its_own_key_only_however_it_is_encoded() {
        let (mine, other) = (KeyPair::generate().expect("key"), KeyPair::generate().expect("key"));
        let key = |pair: &KeyPair| PublicKey::from_spki_der(&pair.subject_public_key_info()).expect("a P-256 key");
        let certificate = CertificateParams::default().self_signed(&mine).expect("signed").der().to_vec();
        assert!(fits(&certificate, &key(&mine)));
        assert!(!fits(&certificate, &key(&other)));
        // An encoding that no parser of ours takes: version 9.
        let mut odd = certificate.clone();
        let version = odd.windows(3).position(|window| window == [2, 1, 2]).expect("a version");
        odd[version + 2] = 9;
        assert!(EkCertificate::parse(&odd).is_err());
        assert!(fits(&odd, &key(&mine)));
        assert!(!fits(&odd, &key(&other)));
        assert!(!fits(&[0x30, 0x03, 0x02, 0x01, 0x05], &key(&mine)));
    }
}
