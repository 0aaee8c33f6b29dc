//! This server's SVID as a workload of an agent of the tier above.

use std::path::Path;
use std::sync::Arc;

use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ironroot_api::pb::workload::{X509svid, X509svidRequest};
use ironroot_api::tls::{SvidResolver, TrustAnchors, provider};
use ironroot_api::unix_socket;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tonic::Request;

use super::error::{IdentityError, SpireError};

/// Largest message of the Workload API that is read, bytes: a few SVIDs and the bundles of many trust domains.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// An SVID, and what proves the server above.
pub(super) struct Identity {
    pub(super) resolver: Arc<SvidResolver>,
    pub(super) anchors: Arc<TrustAnchors>,
    /// UNIX seconds.
    pub(super) not_after_unix: i64,
}

impl Identity {
    /// The first SVID that the agent at `socket` has for this process. Source: go-spiffe, which takes the first one, too.
    pub(super) async fn fetch(socket: &Path, trust_domain: &TrustDomain) -> Result<Self, SpireError> {
        let channel = unix_socket::connect(socket).await.map_err(SpireError::WorkloadApi)?;
        let mut client = SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut request = Request::new(X509svidRequest {});
        request.metadata_mut().insert("workload.spiffe.io", "true".parse().expect("a constant legal header value"));
        let none = |status| SpireError::NoIdentity(socket.to_owned(), status);
        let mut stream = client.fetch_x509svid(request).await.map_err(none)?.into_inner();
        let message = stream.message().await.map_err(none)?;
        let unusable = |error| SpireError::Identity(socket.to_owned(), error);
        let svid = message.and_then(|message| message.svids.into_iter().next());
        let svid = svid.ok_or_else(|| unusable(IdentityError::Missing))?;
        let certificates = Certificate::parse_concatenated(&svid.x509_svid).map_err(|error| unusable(error.into()))?;
        let leaf = certificates.first().ok_or_else(|| unusable(IdentityError::Missing))?;
        let id = leaf.leaf_spiffe_id().map_err(|error| unusable(error.into()))?;
        if !id.is_member_of(trust_domain) {
            return Err(SpireError::OtherTrustDomain { found: id, expected: trust_domain.clone() });
        }
        let not_after_unix = leaf.not_after_unix();
        let anchors = anchors(&svid, trust_domain).map_err(unusable)?;
        let resolver = SvidResolver::new(certified(&certificates, &svid).map_err(unusable)?);
        Ok(Self { resolver, anchors, not_after_unix })
    }
}

fn anchors(svid: &X509svid, trust_domain: &TrustDomain) -> Result<Arc<TrustAnchors>, IdentityError> {
    let roots = Certificate::parse_concatenated(&svid.bundle)?;
    let roots: Vec<_> = roots.iter().map(|root| root.der().clone()).collect();
    Ok(TrustAnchors::new(trust_domain.clone(), &roots)?)
}

fn certified(certificates: &[Certificate], svid: &X509svid) -> Result<CertifiedKey, IdentityError> {
    let chain: Vec<CertificateDer<'static>> = certificates.iter().map(|one| one.der().clone()).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.x509_svid_key.to_vec()));
    CertifiedKey::from_der(chain, key, &provider()).map_err(IdentityError::Key)
}
