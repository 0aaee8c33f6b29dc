//! Certificates as they are held: DER laid end to end, as the Workload API sends them.

use ironroot_api::certificate::Certificate;
use ironroot_api::tls::TrustAnchors;
use prost::bytes::Bytes;
use rustls_pki_types::CertificateDer;
use webpki::KeyUsage;

/// Some certificates. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerList {
    concatenated: Bytes,
    each: Box<[Bytes]>,
}

impl DerList {
    pub(super) fn of<'a>(certificates: impl IntoIterator<Item = &'a Certificate>) -> Self {
        let (mut concatenated, mut lengths) = (Vec::new(), Vec::new());
        for certificate in certificates {
            concatenated.extend_from_slice(certificate.der());
            lengths.push(certificate.der().len());
        }
        concatenated.shrink_to_fit();
        let concatenated = Bytes::from(concatenated);
        let mut rest = concatenated.clone();
        let each = lengths.into_iter().map(|length| rest.split_to(length)).collect();
        Self { concatenated, each }
    }

    /// All of them, one after the other.
    pub fn concatenated(&self) -> &Bytes {
        &self.concatenated
    }

    /// The certificates in the order in which they came.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = CertificateDer<'_>> {
        self.each.iter().map(|der| CertificateDer::from(&der[..]))
    }

    /// The number of certificates.
    pub fn len(&self) -> usize {
        self.each.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// Whether they are a chain, leaf first, with a path to `anchors` at the moment `at`.
    pub(crate) fn leads_to(&self, anchors: &TrustAnchors, at: i64) -> bool {
        let chain: Vec<_> = self.iter().collect();
        let verify = |leaf, others| anchors.verify(leaf, others, KeyUsage::client_auth(), at).is_ok();
        chain.split_first().is_some_and(|(leaf, others)| verify(leaf, others))
    }
}
