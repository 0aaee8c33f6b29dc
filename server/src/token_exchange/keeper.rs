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
        let mut first = None;
        loop {
            let asked = self.wishes.len();
            self.fetch().await;
            let before = (0..asked).map_while(|_| self.wishes.try_recv().ok());
            for waiting in first.into_iter().chain(before) {
                let _ = waiting.send(());
            }
            // Whoever came meanwhile is told by that: the issuer may have answered before.
            while self.wishes.try_recv().is_ok() {}
            first = self.rest().await;
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
                // One that comes too soon is dropped: whoever waits is told to come again.
                Some(waiting) = self.wishes.recv() => if began.elapsed() >= COOLDOWN {
                    return Some(waiting);
                },
            }
        }
    }
}

impl Keys {
    /// All keys, if the one of this ID is among them; waits for a fetch if it is not and one may be begun. That the issuer does not have it is
    /// said after a fetch alone.
    pub async fn with(&self, key_id: &str) -> Result<Arc<IssuerKeys>, TokenRefusal> {
        if let Some(keys) = self.believed().filter(|keys| keys.has(key_id)) {
            return Ok(keys);
        }
        let (done, told) = oneshot::channel();
        self.wishes.try_send(done).map_err(|_| TokenRefusal::Busy(self.issuer.clone()))?;
        // Dropped where none was begun since.
        let was_fetched = told.await.is_ok();
        let keys = self.believed().ok_or_else(|| TokenRefusal::NoKeys(self.issuer.clone()))?;
        match (keys.has(key_id), was_fetched) {
            (true, _) => Ok(keys),
            (false, true) => Err(JwtRefusal::UnknownIssuerKey(key_id.to_owned()).into()),
            (false, false) => {
                Err(TokenRefusal::LookedJustNow { issuer: self.issuer.clone(), key_id: key_id.to_owned() })
            }
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

    /// A set of one key.
    fn set(key_id: &str) -> String {
        let point =
            r#""x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;
        format!(r#"{{"keys":[{{"kid":"{key_id}","kty":"EC","crv":"P-256",{point}}}]}}"#)
    }

    //= EXC-07
    #[tokio::test]
    async fn a_key_that_no_fetch_looked_for_is_asked_for_again_and_not_refused_for_good() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("keys.json");
        std::fs::write(&file, set("k1")).expect("written");
        let policy = IssuerPolicy { keys: KeySource::File(file.clone()), ..(*policy()).clone() };
        let (keeper, keys) = Keeper::new(Arc::new(policy), KeyExchanges::default());
        let keeping = tokio::spawn(keeper.run());
        keys.with("k1").await.expect("read at the start");
        std::fs::write(&file, set("k2")).expect("written");
        let (issuer, key_id) = ("https://ci.example".to_owned(), "k2".to_owned());
        let refused = keys.with("k2").await.expect_err("read just before");
        assert_eq!(refused, TokenRefusal::LookedJustNow { issuer, key_id });
        keeping.abort();
    }

    #[tokio::test]
    async fn a_key_that_a_fetch_did_not_bring_is_unknown() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("keys.json");
        std::fs::write(&file, set("k1")).expect("written");
        let policy = IssuerPolicy { keys: KeySource::File(file), ..(*policy()).clone() };
        let (keeper, keys) = Keeper::new(Arc::new(policy), KeyExchanges::default());
        // Its wish is there before the first fetch begins.
        let (asked, ()) = tokio::join!(keys.with("k9"), async { drop(tokio::spawn(keeper.run())) });
        assert_eq!(asked.expect_err("made up"), JwtRefusal::UnknownIssuerKey("k9".to_owned()).into());
    }

    #[test]
    fn keys_that_their_issuer_did_not_confirm_for_a_day_are_believed_no_more() {
        let keys = Arc::new(IssuerKeys::from_jwks(set("k").as_bytes()).expect("keys"));
        let held = Held { keys, confirmed: Instant::now() };
        assert!(held.are_believed(held.confirmed) && held.are_believed(held.confirmed + LONGEST_UNCONFIRMED / 2));
        assert!(!held.are_believed(held.confirmed + LONGEST_UNCONFIRMED));
    }
}
