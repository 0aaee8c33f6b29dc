//! The authorities of one trust domain, as workloads get them.

use ironroot_api::certificate::Certificate;
use prost::bytes::Bytes;

use super::IdentitiesError;

/// X.509 authorities of a trust domain. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    concatenated: Bytes,
    authorities: Vec<Bytes>,
    sequence: u64,
}

impl Bundle {
    /// Takes each authority's DER certificate, one at least, and the bundle's sequence number (0 if it has none).
    pub fn try_new<'a>(
        authorities: impl IntoIterator<Item = &'a [u8]>,
        sequence: u64,
    ) -> Result<Self, IdentitiesError> {
        let (mut concatenated, mut lengths) = (Vec::new(), Vec::new());
        for der in authorities {
            Certificate::parse(der).map_err(IdentitiesError::Authority)?;
            concatenated.extend_from_slice(der);
            lengths.push(der.len());
        }
        if lengths.is_empty() {
            return Err(IdentitiesError::EmptyBundle);
        }
        let concatenated = Bytes::from(concatenated);
        let mut rest = concatenated.clone();
        let authorities = lengths.into_iter().map(|length| rest.split_to(length)).collect();
        Ok(Self { concatenated, authorities, sequence })
    }

    /// The DER certificates laid end to end, as the Workload API sends them.
    pub fn concatenated(&self) -> &Bytes {
        &self.concatenated
    }

    /// Each authority's DER certificate.
    pub fn authorities(&self) -> &[Bytes] {
        &self.authorities
    }

    /// Grows with every change; 0 if unknown.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}
