//! What TLS shows to whom: to who asks by one of our names that name's certificate, to the CA that looks what it wants to see.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use ironroot_api::tls::ACME_TLS_ALPN;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Certificates by name; names are those of the configuration, for good.
#[derive(Debug)]
pub(crate) struct Doorman(BTreeMap<String, Shown>);

#[derive(Debug, Default)]
struct Shown {
    certificate: ArcSwapOption<CertifiedKey>,
    challenge: ArcSwapOption<CertifiedKey>,
}

impl Doorman {
    /// Shows nothing yet.
    pub(super) fn new(names: &[String]) -> Arc<Self> {
        Arc::new(Self(names.iter().map(|name| (name.clone(), Shown::default())).collect()))
    }

    /// From now on this certificate is shown to who asks by `name`.
    pub(super) fn show(&self, name: &str, certified: Arc<CertifiedKey>) {
        if let Some(shown) = self.0.get(name) {
            shown.certificate.store(Some(certified));
        }
    }

    /// Answers the CA's challenge for `name` until the guard is dropped.
    pub(super) fn answer<'a>(&'a self, name: &str, challenge: CertifiedKey) -> Option<Answering<'a>> {
        let shown = self.0.get(name)?;
        shown.challenge.store(Some(Arc::new(challenge)));
        Some(Answering(shown))
    }

    /// By name, what is shown now.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (&str, Option<Arc<CertifiedKey>>)> {
        self.0.iter().map(|(name, shown)| (name.as_str(), shown.certificate.load_full()))
    }

    fn choose(&self, name: Option<&str>, is_challenge: bool) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.get(&name?.to_ascii_lowercase())?;
        match is_challenge {
            true => shown.challenge.load_full(),
            false => shown.certificate.load_full(),
        }
    }
}

impl ResolvesServerCert for Doorman {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Source: RFC 8737 §3: the CA offers this protocol and no other.
        let is_challenge = hello.alpn().is_some_and(|mut offered| offered.by_ref().eq([ACME_TLS_ALPN]));
        self.choose(hello.server_name(), is_challenge)
    }
}

/// A challenge is answered as long as this lives.
pub(super) struct Answering<'a>(&'a Shown);

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.challenge.store(None);
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::tls::provider;
    use rcgen::{CertificateParams, KeyPair};
    use rustls_pki_types::PrivateKeyDer;

    use super::*;

    fn certified(name: &str) -> CertifiedKey {
        let key = KeyPair::generate().expect("key");
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).expect("legal").self_signed(&key).expect("signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
        CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider()).expect("fits")
    }

    #[test]
    fn only_who_asks_by_our_name_is_shown_anything_and_the_challenge_is_for_the_ca_alone() {
        let doorman = Doorman::new(&["bundle.example".to_owned()]);
        assert!(doorman.choose(Some("bundle.example"), false).is_none(), "nothing is there yet");
        doorman.show("bundle.example", Arc::new(certified("bundle.example")));
        doorman.show("other.example", Arc::new(certified("other.example")));
        assert!(doorman.choose(Some("Bundle.Example"), false).is_some());
        for name in [Some("other.example"), Some("x.bundle.example"), Some(""), None] {
            assert!(doorman.choose(name, false).is_none(), "{name:?}");
        }
        assert!(doorman.choose(Some("bundle.example"), true).is_none(), "nobody is waited for");
        let challenge = certified("bundle.example");
        let leaf = challenge.cert[0].clone();
        let answering = doorman.answer("bundle.example", challenge).expect("our name");
        let seen =
            |is_challenge| doorman.choose(Some("bundle.example"), is_challenge).map(|shown| shown.cert[0].clone());
        assert_eq!(seen(true), Some(leaf.clone()));
        assert_ne!(seen(false), Some(leaf));
        drop(answering);
        assert_eq!(seen(true), None);
        assert!(doorman.answer("other.example", certified("other.example")).is_none());
    }
}
