//! The certificate the server itself shows: its key lives in this process and is new with every certificate.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use ironroot_api::csr::Spki;
use ironroot_api::tls::{SvidResolver, provider};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{RunError, now_unix};
use crate::ca::CertificateAuthority;

/// Wait before another try when the token cannot sign.
const RETRY: Duration = Duration::from_secs(2);

/// The server's SVID, shown by [`ServerSvid::resolver`] and replaced at half its life.
pub(super) struct ServerSvid {
    ca: Arc<CertificateAuthority>,
    resolver: Arc<SvidResolver>,
    lifetime: Lifetime,
}

struct Lifetime {
    issued_unix: i64,
    not_after_unix: i64,
}

impl ServerSvid {
    /// Has the first one signed.
    pub(super) async fn issue(ca: Arc<CertificateAuthority>, now_unix: i64) -> Result<Self, RunError> {
        let (certified, lifetime) = sign(&ca, now_unix).await?;
        Ok(Self { ca, resolver: SvidResolver::new(certified), lifetime })
    }

    /// What TLS shows.
    pub(super) fn resolver(&self) -> Arc<SvidResolver> {
        self.resolver.clone()
    }

    /// Replaces the SVID at half its life, and soon after the CA has changed. Never ends.
    pub(super) async fn keep_current(mut self) {
        let mut bundle = self.ca.bundle();
        loop {
            let half = (self.lifetime.not_after_unix - self.lifetime.issued_unix) / 2;
            let due = self.lifetime.issued_unix + half - now_unix();
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(due.max(0).unsigned_abs())) => {}
                Ok(()) = bundle.changed() => {}
            }
            match sign(&self.ca, now_unix()).await {
                Ok((certified, lifetime)) => {
                    self.resolver.replace(certified);
                    self.lifetime = lifetime;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "server SVID not renewed; the old one stays"
                    );
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

async fn sign(ca: &CertificateAuthority, now_unix: i64) -> Result<(CertifiedKey, Lifetime), RunError> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("key generation needs only randomness");
    let spki = key.public_key().as_der().expect("a P-256 key has a SubjectPublicKeyInfo");
    let spki = Spki::parse(spki.as_ref()).expect("a fresh P-256 key is an accepted key");
    let pkcs8 = key.to_pkcs8v1().expect("a fresh key can be written down");
    let issued = ca.sign_server_svid(&spki, now_unix).await?;
    let chain = issued.chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec()));
    let certified = CertifiedKey::from_der(chain, key, &provider()).expect("the certificate is for this key");
    Ok((certified, Lifetime { issued_unix: now_unix, not_after_unix: issued.not_after_unix }))
}
