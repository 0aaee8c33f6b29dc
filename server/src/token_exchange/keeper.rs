//! Who keeps an issuer's keys current: one task each, one fetch at a time, and at once when a token names a key that is not known,
//! unless that was tried just now. Whoever makes key IDs up makes nobody fetch more often than that.

use std::sync::Arc;
use std::time::Duration;

use ironroot_api::jwt::{IssuerKeys, JwtRefusal};
use ironroot_api::tls::KeyExchanges;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::keys::{KeysError, obtain};
use super::policy::IssuerPolicy;
use super::refusal::TokenRefusal;

/// How often keys are fetched that nobody missed.
const REFRESH: Duration = Duration::from_secs(300);
/// No fetch is begun within so long of the end of the one before, whoever asks for it.
const COOLDOWN: Duration = Duration::from_secs(10);
/// Keys that were not confirmed for so long are believed no more: an issuer that took one back would not be heard.
const LONGEST_UNCONFIRMED: Duration = Duration::from_secs(24 * 3600);
/// Callers that may wait for a fetch of one issuer's keys.
const MAX_WAITING: usize = 64;

/// Keys, and when their issuer last confirmed them.
#[derive(Clone, Debug)]
struct Held {
    keys: Arc<IssuerKeys>,
    confirmed: Instant,
}

impl Held {
    fn are_believed(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.confirmed) < LONGEST_UNCONFIRMED
    }
}

/// Asks for an issuer's keys.
#[derive(Debug)]
pub(super) struct Keys {
    issuer: String,
    held: watch::Receiver<Option<Held>>,
    wishes: mpsc::Sender<oneshot::Sender<()>>,
}

/// See the module; one for each issuer.
#[derive(Debug)]
pub struct Keeper {
    policy: Arc<IssuerPolicy>,
    exchanges: KeyExchanges,
    held: watch::Sender<Option<Held>>,
    wishes: mpsc::Receiver<oneshot::Sender<()>>,
}

impl Keeper {
    pub(super) fn new(policy: Arc<IssuerPolicy>, exchanges: KeyExchanges) -> (Self, Keys) {
        let ((held, shown), (wish, wishes)) = (watch::channel(None), mpsc::channel(MAX_WAITING));
        let keys = Keys { issuer: policy.url.clone(), held: shown, wishes: wish };
        (Self { policy, exchanges, held, wishes }, keys)
    }

    /// Runs until dropped.
    pub async fn run(mut self) {
        let mut waiting = None;
        loop {
            self.fetch().await;
            // Whoever waits is told by that, and so is everybody who came meanwhile.
            drop(waiting);
            while self.wishes.try_recv().is_ok() {}
            waiting = self.rest().await;
        }
    }

    async fn fetch(&self) {
        match obtain(&self.policy, self.exchanges).await {
            Ok(keys) => self.hold(keys),
            Err(error) => self.tell(&error),
        }
    }

    fn hold(&self, keys: IssuerKeys) {
        let is_same = self.held.borrow().as_ref().is_some_and(|held| *held.keys == keys);
        if !is_same {
            let (keys, passed_over) = (keys.count(), keys.passed_over());
            info!(issuer = self.policy.name, keys, passed_over, "keys of a token issuer read");
        }
        self.held.send_replace(Some(Held { keys: Arc::new(keys), confirmed: Instant::now() }));
    }

    fn tell(&self, error: &KeysError) {
        let error = error as &dyn std::error::Error;
        match self.held.borrow().is_some() {
            true => {
                warn!(issuer = self.policy.name, error, "keys of a token issuer not read; those that are held stay")
            }
            false => {
                warn!(issuer = self.policy.name, error, "keys of a token issuer not read: its tokens are not taken")
            }
        }
    }

    //= EXC-07 token exchange: "a bounded fetch every ten seconds at the most"
    /// Until the next fetch is due, or is wished for and may be: whoever waits for it then.
    async fn rest(&mut self) -> Option<oneshot::Sender<()>> {
        let began = Instant::now();
        let pause = if self.held.borrow().is_some() { REFRESH } else { COOLDOWN };
        let due = sleep_until(began + pause);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = &mut due => return None,
                // One that comes too soon is dropped: whoever waits is told that nothing will change now.
                Some(waiting) = self.wishes.recv() => if began.elapsed() >= COOLDOWN {
                    return Some(waiting);
                },
            }
        }
    }
}

impl Keys {
    /// All keys, if the one of this ID is among them; waits for a fetch if it is not and one may be begun.
    pub async fn with(&self, key_id: &str) -> Result<Arc<IssuerKeys>, TokenRefusal> {
        if let Some(keys) = self.believed().filter(|keys| keys.has(key_id)) {
            return Ok(keys);
        }
        let (done, told) = oneshot::channel();
        self.wishes.try_send(done).map_err(|_| TokenRefusal::Busy(self.issuer.clone()))?;
        // Dropped when it is over, whatever came of it.
        let _ = told.await;
        let keys = self.believed().ok_or_else(|| TokenRefusal::NoKeys(self.issuer.clone()))?;
        match keys.has(key_id) {
            true => Ok(keys),
            false => Err(JwtRefusal::UnknownIssuerKey(key_id.to_owned()).into()),
        }
    }

    fn believed(&self) -> Option<Arc<IssuerKeys>> {
        let held = self.held.borrow();
        held.as_ref().filter(|held| held.are_believed(Instant::now())).map(|held| held.keys.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ironroot_api::TrustDomain;
    use ironroot_attest::SelectorSet;
    use tokio::time::timeout;

    use super::*;
    use crate::token_exchange::{KeySource, exchange_parent};

    fn policy() -> Arc<IssuerPolicy> {
        Arc::new(IssuerPolicy {
            name: "ci".to_owned(),
            parent: exchange_parent(&TrustDomain::new("td").expect("legal"), "ci").expect("legal"),
            url: "https://ci.example".to_owned(),
            audience: Vec::new(),
            algorithms: Vec::new(),
            required: SelectorSet::default(),
            single_use: true,
            keys: KeySource::File(PathBuf::new()),
        })
    }

    #[tokio::test]
    async fn no_more_callers_wait_for_keys_than_there_is_room_for() {
        let (_keeper, keys) = Keeper::new(policy(), KeyExchanges::default());
        for _ in 0..MAX_WAITING {
            assert!(timeout(Duration::ZERO, keys.with("k")).await.is_err(), "it waits");
        }
        let refused = keys.with("k").await.expect_err("refused");
        assert_eq!(refused, TokenRefusal::Busy("https://ci.example".to_owned()));
    }

    #[test]
    fn keys_that_their_issuer_did_not_confirm_for_a_day_are_believed_no_more() {
        let set = br#"{"keys":[{"kid":"k","kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
        let keys = Arc::new(IssuerKeys::from_jwks(set).expect("keys"));
        let held = Held { keys, confirmed: Instant::now() };
        assert!(held.are_believed(held.confirmed) && held.are_believed(held.confirmed + LONGEST_UNCONFIRMED / 2));
        assert!(!held.are_believed(held.confirmed + LONGEST_UNCONFIRMED));
    }
}
