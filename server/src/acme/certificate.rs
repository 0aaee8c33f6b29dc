//! A certificate of the web's with its key, judged: fit to be shown to who asks by one name.

use std::fmt;
use std::sync::Arc;

use ironroot_api::certificate::Certificate;
use ironroot_api::tls::provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use thiserror::Error;
use zeroize::Zeroizing;

/// Certificates of a chain at the most.
const MAX_CHAIN: usize = 10;

/// Why what a CA issued, or what was kept of it, is not shown.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum CertificateRefusal {
    #[error("it is no chain of certificates in PEM")]
    NotPem,
    #[error("it has more than {MAX_CHAIN} certificates")]
    TooMany,
    #[error("there is no private key in PEM with it")]
    NoKey,
    /// The key is another, or of a kind that is not known.
    #[error("its key is not the one that it was ordered for")]
    OtherKey(#[source] rustls::Error),
    #[error("it is not for the name {0:?}")]
    OtherName(String),
    #[error("it ended {ago} s ago, by this machine's clock")]
    Ended { ago: i64 },
}

/// May be shown to who asks by the name that it was judged for.
pub(super) struct WebCertificate {
    /// Key and chain, as they are kept.
    pub(super) pem: Zeroizing<Vec<u8>>,
    /// The same for TLS.
    pub(super) certified: Arc<CertifiedKey>,
    /// From when to when it is valid, UNIX seconds.
    pub(super) life: (i64, i64),
}

impl WebCertificate {
    /// Judges a key and a chain that follow each other in PEM, for `name`, at `now`, UNIX seconds.
    pub(super) fn judge(pem: Zeroizing<Vec<u8>>, name: &str, now: i64) -> Result<Self, CertificateRefusal> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
            .take(MAX_CHAIN + 1)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateRefusal::NotPem)?;
        if chain.len() > MAX_CHAIN {
            return Err(CertificateRefusal::TooMany);
        }
        let leaf = chain.first().ok_or(CertificateRefusal::NotPem)?;
        let life = judge_leaf(leaf, name, now)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| CertificateRefusal::NoKey)?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(CertificateRefusal::OtherKey)?;
        Ok(Self { pem, certified: Arc::new(certified), life })
    }
}

// Not derived: the key stays out of logs.
impl fmt::Debug for WebCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebCertificate").field("life", &self.life).finish_non_exhaustive()
    }
}

fn judge_leaf(leaf: &CertificateDer<'_>, name: &str, now: i64) -> Result<(i64, i64), CertificateRefusal> {
    let entity = webpki::EndEntityCert::try_from(leaf).map_err(|_| CertificateRefusal::NotPem)?;
    let other_name = || CertificateRefusal::OtherName(name.to_owned());
    let wanted = ServerName::try_from(name).map_err(|_| other_name())?;
    entity.verify_is_valid_for_subject_name(&wanted).map_err(|_| other_name())?;
    let leaf = Certificate::parse(leaf).map_err(|_| CertificateRefusal::NotPem)?;
    let life = (leaf.not_before_unix(), leaf.not_after_unix());
    match now > life.1 {
        true => Err(CertificateRefusal::Ended { ago: now - life.1 }),
        false => Ok(life),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const NAME: &str = "bundle.example";

    fn issued(name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("legal");
        (key.serialize_pem(), params.self_signed(&key).expect("signed").pem())
    }

    fn judged(pem: &str, now: i64) -> Result<WebCertificate, CertificateRefusal> {
        WebCertificate::judge(Zeroizing::new(pem.as_bytes().to_vec()), NAME, now)
    }

    #[test]
    fn what_a_ca_issues_is_shown_only_if_it_is_what_was_ordered() {
        let ((key, chain), (other_key, _), (named_key, named)) = (issued(NAME), issued(NAME), issued("other.example"));
        let good = judged(&format!("{key}{chain}"), 1_800_000_000).expect("as ordered");
        assert_eq!(good.certified.cert.len(), 1);
        assert_eq!(format!("{good:?}"), format!("WebCertificate {{ life: {:?}, .. }}", good.life), "no key in a log");
        let refused = |pem: String, now| judged(&pem, now).expect_err("refused");
        assert!(matches!(refused(format!("{other_key}{chain}"), 0), CertificateRefusal::OtherKey(_)));
        assert!(matches!(refused(format!("{named_key}{named}"), 0), CertificateRefusal::OtherName(_)));
        assert!(matches!(refused(chain.clone(), 0), CertificateRefusal::NoKey));
        assert!(matches!(refused(key.clone(), 0), CertificateRefusal::NotPem));
        assert!(matches!(refused(format!("{key}{}", chain.repeat(MAX_CHAIN + 1)), 0), CertificateRefusal::TooMany));
        let late = good.life.1 + 7;
        assert!(matches!(refused(format!("{key}{chain}"), late), CertificateRefusal::Ended { ago: 7 }));
    }

    #[test]
    fn what_a_ca_issues_survives_damage() {
        let (key, chain) = issued(NAME);
        let seed = format!("{key}{chain}").into_bytes();
        ironroot_fuzz::Target::new("what an ACME CA issues").seed(seed).survives(|bytes| {
            drop(WebCertificate::judge(Zeroizing::new(bytes.to_vec()), NAME, 0));
        });
    }
}
