//! What is between a CA and the root of the authority above this server.

use ironroot_api::certificate::Certificate;
use serde::{Deserialize, Serialize};

use super::credential::CaCertificate;

/// The certificates between a CA and a root above this server, the CA's issuer first; none if the root itself has signed it. The root
/// is in the bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UpstreamChain(Vec<CaCertificate>);

impl UpstreamChain {
    /// Those, in this order.
    pub fn new(certificates: impl IntoIterator<Item = CaCertificate>) -> Self {
        Self(certificates.into_iter().collect())
    }

    /// The one next to the root; none if the root itself has signed the CA.
    pub fn last(&self) -> Option<&Certificate> {
        self.0.last().map(CaCertificate::parsed)
    }

    /// DER, in order.
    pub fn ders(&self) -> impl Iterator<Item = Vec<u8>> {
        self.0.iter().map(|certificate| certificate.der().to_vec())
    }
}
