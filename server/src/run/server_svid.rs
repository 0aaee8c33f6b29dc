//! The certificate the server itself shows: its key lives in this process and is new with every certificate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use ironroot_api::certificate::Certificate;
use ironroot_api::csr::Spki;
use ironroot_api::tls::{SvidResolver, provider};
use ironroot_shell::clock::wall_unix;
use ironroot_shell::telemetry::Calls;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::ca::{CaError, CertificateAuthority, TrustBundle};

/// The clock is looked at no less often than this: it may have been set.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Wait before another try when the token cannot sign.
const RETRY: Duration = Duration::from_secs(2);

/// The server's SVID, shown by [`ServerSvid::resolver`] and replaced at half its life.
pub(super) struct ServerSvid {
    ca: Arc<CertificateAuthority>,
    resolver: Arc<SvidResolver>,
    lifetime: Lifetime,
    rotations: Arc<Calls>,
}

struct Lifetime {
    issued_unix: i64,
    not_after_unix: i64,
}

impl ServerSvid {
    /// Has the first one signed. If the CA cannot, because the clock is wrong, the server starts without: whoever administers
    /// it is to learn what is wrong.
    pub(super) async fn issue(ca: Arc<CertificateAuthority>) -> Self {
        let (began, rotations) = (Instant::now(), Arc::<Calls>::default());
        let signed = sign(&ca, wall_unix()).await;
        rotations.done(&signed, began.elapsed());
        match signed {
            Ok((certified, lifetime)) => Self { ca, resolver: SvidResolver::new(certified), lifetime, rotations },
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the server has no SVID, agents cannot connect; it is tried again"
                );
                let lifetime = Lifetime { issued_unix: 0, not_after_unix: 0 };
                Self { ca, resolver: SvidResolver::empty(), lifetime, rotations }
            }
        }
    }

    /// What TLS shows.
    pub(super) fn resolver(&self) -> Arc<SvidResolver> {
        self.resolver.clone()
    }

    /// How often one was signed, or not.
    pub(super) fn rotations(&self) -> Arc<Calls> {
        Arc::clone(&self.rotations)
    }

    /// Replaces the SVID at half its life, and soon after the CA has changed. Never ends. Failures are told once.
    pub(super) async fn keep_current(mut self) {
        let mut bundle = self.ca.bundle();
        let mut told = false;
        loop {
            tokio::select! {
                () = self.lifetime.is_half_over() => {}
                Ok(()) = bundle.changed() => tell_if_tainted(&self.resolver.chain(), &bundle.borrow_and_update()),
            }
            let began = Instant::now();
            let signed = sign(&self.ca, wall_unix()).await;
            self.rotations.done(&signed, began.elapsed());
            match signed {
                Ok((certified, lifetime)) => {
                    self.resolver.replace(certified);
                    self.lifetime = lifetime;
                    told = false;
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "server SVID not renewed; the old one stays, it is tried again"
                        );
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

impl Lifetime {
    /// Done at half of it, also when the clock is set forward past that or back to before it began: clients whose clocks are
    /// right would refuse the certificate.
    async fn is_half_over(&self) {
        while let Some(wait) = self.wait(wall_unix()) {
            tokio::time::sleep(wait).await;
        }
    }

    fn wait(&self, now_unix: i64) -> Option<Duration> {
        let half = (self.not_after_unix - self.issued_unix).max(2) / 2;
        let due = self.issued_unix + half - now_unix;
        let in_its_time = now_unix >= self.issued_unix && due > 0;
        in_its_time.then(|| Duration::from_secs(due.unsigned_abs()).min(LONGEST_WAIT))
    }
}

/// Source of the words: SPIRE; its suites wait for them.
fn tell_if_tainted(chain: &[CertificateDer<'_>], bundle: &TrustBundle) {
    let parsed = |der: &[u8]| Certificate::parse(der).ok();
    let signer = chain.last().and_then(|last| parsed(last)?.authority_key_id());
    let mut tainted = bundle.tainted_authorities.iter().filter_map(|der| parsed(der)?.subject_key_id());
    if signer.is_some_and(|signer| tainted.any(|tainted| tainted == signer)) {
        tracing::info!("Server SVID signed using a tainted authority, forcing rotation of the Server SVID");
    }
}

async fn sign(ca: &CertificateAuthority, now_unix: i64) -> Result<(CertifiedKey, Lifetime), CaError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_replaced_at_half_its_life_or_when_the_clock_left_it() {
        let lifetime = Lifetime { issued_unix: 1000, not_after_unix: 4600 };
        assert_eq!(lifetime.wait(1000), Some(LONGEST_WAIT));
        assert_eq!(lifetime.wait(2797), Some(Duration::from_secs(3)));
        for replaced_at in [2800, 9_999_999, 999, 0] {
            assert_eq!(lifetime.wait(replaced_at), None, "{replaced_at}");
        }
        let last_second = Lifetime { issued_unix: 1000, not_after_unix: 1001 };
        assert_eq!(last_second.wait(1000), Some(Duration::from_secs(1)), "the token is not asked without a pause");
    }
}
