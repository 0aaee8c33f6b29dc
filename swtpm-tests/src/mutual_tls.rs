//! Two workloads in mutual TLS, each with what the Workload API gave it.

use std::sync::Arc;

use ironroot_api::certificate::Certificate;
use ironroot_api::pb::workload::X509svidResponse;
use ironroot_api::tls::{
    ClientTrust, KeyExchanges, ServerTrust, SvidResolver, TrustAnchors, client_config, provider, server_config,
};
use ironroot_api::{SpiffeId, TrustDomain};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName as TlsName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::deployment::TRUST_DOMAIN;

/// One accepts, the other dials; each believes whom its own bundle proves. Why it failed, and whose fault it is.
pub async fn handshake(listener: &X509svidResponse, dialer: &X509svidResponse) -> Result<(), String> {
    let accepts =
        server_config(ClientTrust::new(anchors(&listener.svids[0].bundle)), shown(listener), KeyExchanges::default());
    let expected = SpiffeId::parse(&listener.svids[0].spiffe_id).map_err(|error| error.to_string())?;
    let trust = ServerTrust::Bundle { anchors: anchors(&dialer.svids[0].bundle), expected };
    let dials = client_config(trust, shown(dialer), KeyExchanges::default());
    let (one, other) = tokio::io::duplex(64 * 1024);
    let name = TlsName::try_from("workload").expect("a constant legal name");
    let (accepted, dialled) =
        tokio::join!(TlsAcceptor::from(accepts).accept(one), TlsConnector::from(dials).connect(name, other));
    accepted.map_err(|error| format!("the listener refuses: {error}"))?;
    dialled.map(drop).map_err(|error| format!("the dialer refuses: {error}"))
}

/// Those of a bundle as the Workload API sends it.
pub fn anchors(bundle: &[u8]) -> Arc<TrustAnchors> {
    let ders: Vec<CertificateDer<'static>> =
        Certificate::parse_concatenated(bundle).expect("a bundle").iter().map(|one| one.der().clone()).collect();
    TrustAnchors::new(TrustDomain::new(TRUST_DOMAIN).expect("legal"), &ders).expect("authorities")
}

fn shown(message: &X509svidResponse) -> Arc<SvidResolver> {
    let svid = &message.svids[0];
    let chain = Certificate::parse_concatenated(&svid.x509_svid).expect("DER");
    let chain = chain.iter().map(|one| one.der().clone()).collect();
    let key = PrivateKeyDer::Pkcs8(svid.x509_svid_key.to_vec().into());
    SvidResolver::new(CertifiedKey::from_der(chain, key, &provider()).expect("a pair"))
}
