//! The agent's own certificate and key as whoever serves with them shows them.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use crate::agent_key::AgentKey;
use crate::server_answers::AgentSvid;
use crate::trusted_time::{Lifetime, TrustedTime};

/// What one server's loop has; nothing before it attests, and none after a ban. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct OwnCertificate(Arc<RwLock<Option<Shown>>>);

#[derive(Clone, Debug)]
struct Shown {
    certified: Arc<CertifiedKey>,
    lifetime: Lifetime,
}

impl OwnCertificate {
    /// From now on this is shown; `key` is the one that `svid` names.
    pub fn show(&self, svid: &AgentSvid, key: &AgentKey) {
        let chain = svid.chain.iter().map(CertificateDer::into_owned).collect();
        let certified = Arc::new(CertifiedKey::new(chain, key.tls_key()));
        self.set(Some(Shown { certified, lifetime: svid.lifetime }));
    }

    /// Nothing is shown any more.
    pub fn hide(&self) {
        self.set(None);
    }

    fn set(&self, shown: Option<Shown>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    fn shown(&self) -> Option<Shown> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What all servers' loops have: the first that lasts, in the order of the servers, is shown. Each ends by what its own server says of
/// the time.
#[derive(Debug)]
pub struct OwnCertificates(Vec<(OwnCertificate, TrustedTime)>);

impl OwnCertificates {
    /// Of these loops, each with what is known of the time by its server.
    pub fn new(of_servers: Vec<(OwnCertificate, TrustedTime)>) -> Arc<Self> {
        Arc::new(Self(of_servers))
    }

    fn first_that_lasts(&self) -> Option<Arc<CertifiedKey>> {
        let lasting = |(own, time): &(OwnCertificate, TrustedTime)| {
            own.shown().filter(|shown| time.moment().remaining(&shown.lifetime) > 0)
        };
        self.0.iter().find_map(lasting).map(|shown| shown.certified)
    }
}

impl ResolvesServerCert for OwnCertificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.first_that_lasts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_key::SoftwareKey;
    use crate::trusted_time::Span;

    fn svid(seconds: i64) -> AgentSvid {
        let now = TrustedTime::new().moment().estimate();
        let span = Span { not_before: now - 60, not_after: now + seconds };
        AgentSvid::unchecked(Lifetime::kept(span, Some(seconds)))
    }

    #[test]
    fn the_first_certificate_that_lasts_is_shown_and_none_that_was_withdrawn() {
        let of_servers = [OwnCertificate::default(), OwnCertificate::default()];
        let all = OwnCertificates::new(of_servers.iter().map(|own| (own.clone(), TrustedTime::new())).collect());
        assert!(all.first_that_lasts().is_none());
        let keys = [(); 2].map(|()| AgentKey::Software(Arc::new(SoftwareKey::generate().expect("a key"))));
        let shown = || all.first_that_lasts().map(|shown| shown.key.public_key().expect("known").to_vec());
        let spki = |key: &AgentKey| Some(key.spki_der().to_vec());
        of_servers[1].show(&svid(3600), &keys[1]);
        assert_eq!(shown(), spki(&keys[1]));
        of_servers[0].show(&svid(3600), &keys[0]);
        assert_eq!(shown(), spki(&keys[0]));
        of_servers[0].show(&svid(0), &keys[0]);
        assert_eq!(shown(), spki(&keys[1]), "the first one has ended");
        of_servers.iter().for_each(OwnCertificate::hide);
        assert_eq!(shown(), None);
    }
}
