//! JWT-SVIDs for workloads: made when they are asked for, kept in memory until half of their life is over, and served to their end
//! while the server is away.
//!
//! ```text
//!  fetch ─► cache: more than half left? ─► served
//!      └──► one flight for each wish (flights) ─► NewJWTSVID over the loop's connection (signing) ─► verified (token) ─► cache
//!           the server of the entry, then others that have the same; while it is away the agent's own key, if it has one (gateway mode)
//! ```
//! Nothing here decides who may have what: who calls [`JwtSvids::fetch`] names an entry that its workload has. No token is on the
//! disk: they live for minutes, and each would cost a write of the whole sealed cache. `docs/trusted_time.md` holds for them as
//! for X509-SVIDs.

mod cache;
mod error;
mod flights;
mod patience;
mod signing;
mod token;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ironroot_api::SpiffeId;
use ironroot_api::jwt::Audiences;
use ironroot_shell::logging::{LineRate, LogLimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{debug, info, warn};

pub use error::FetchError;
pub use patience::RenewalPatience;
pub use token::Token;

use crate::identities::Identities;
use crate::server_answers::EntryTerms;
use crate::server_number::{MAX_SERVERS, ServerNumber};
use crate::trusted_time::Moment;
use crate::upstreams::Upstreams;
use cache::TokenCache;
use flights::Flights;
use signing::Signing;
use token::Wish;

/// Calls of NewJWTSVID that are under way at once at one server, for all users: some share of what it signs for one agent in a
/// second.
pub const MAX_CALLS: usize = 32;
/// Longest wait for a place among them.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a token could not be renewed: what is held is served at once meanwhile.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);
/// Lines about one identity's tokens that could not be renewed, and about all of them.
const LINES_PER_IDENTITY: LineRate = LineRate { burst: 1, interval: Duration::from_secs(10) };
const LINES_IN_ALL: LineRate = LineRate { burst: 100, interval: Duration::from_millis(200) };

/// The places of the user that asks, at each server.
pub type Turns<'a> = &'a (dyn Fn(ServerNumber) -> Arc<Semaphore> + Send + Sync);

/// See the module. Clones share everything.
#[derive(Clone)]
pub struct JwtSvids(Arc<State>);

struct State {
    cache: Mutex<TokenCache>,
    flights: Flights,
    patience: RenewalPatience,
    /// Of each server, by its number: one that hangs takes no other's.
    calls: [Arc<Semaphore>; MAX_SERVERS],
    signing: Signing,
    /// About tokens that could not be renewed: workloads can ask as often as they like.
    lines: LogLimit<SpiffeId>,
}

impl JwtSvids {
    /// Signs what `identities` has entries for, at the server whose entry it is.
    pub fn new(identities: watch::Receiver<Arc<Identities>>, upstreams: Upstreams, patience: RenewalPatience) -> Self {
        let signing = Signing::new(identities, upstreams);
        let flights = Flights::default();
        let calls = std::array::from_fn(|_| Arc::new(Semaphore::new(MAX_CALLS)));
        let lines = LogLimit::new(LINES_PER_IDENTITY, LINES_IN_ALL);
        Self(Arc::new(State { cache: Mutex::default(), flights, patience, calls, signing, lines }))
    }

    /// How long a new token is waited for while something else can be served.
    pub fn patience(&self) -> RenewalPatience {
        self.0.patience
    }

    /// What is known of the time, by which tokens end.
    pub fn moment(&self) -> Moment {
        self.0.signing.upstreams.moment()
    }

    /// The same, by what one server says: its tokens end by it.
    pub fn moment_of(&self, server: ServerNumber) -> Moment {
        self.0.signing.upstreams.at(server).time.moment()
    }

    /// A token of this entry for these audiences: one that is held while more than half of it is left, else a new one, else what
    /// is left of the one that is held. `turns` are those of the user that asks, at a server. What one server does not sign is
    /// asked of others that have the same entry.
    pub async fn fetch(
        &self,
        terms: &Arc<EntryTerms>,
        audiences: &Audiences,
        turns: Turns<'_>,
    ) -> Result<Arc<Token>, FetchError> {
        let standbys: Vec<_> = self.0.signing.identities.borrow().standbys_of(terms).cloned().collect();
        let wish = |terms: &Arc<EntryTerms>| Wish { terms: terms.clone(), audiences: audiences.clone() };
        let mut wishes: Vec<Wish> = std::iter::once(terms).chain(&standbys).map(wish).collect();
        // Somebody's good token goes before a new one of the first.
        wishes.sort_by_key(|wish| self.held(wish).is_none_or(|held| held.is_due));
        let last = wishes.pop().ok_or(FetchError::ServerAway)?;
        for wish in wishes {
            let (server, asked) = (wish.terms.server, self.fetch_from(wish, turns));
            match tokio::time::timeout(self.0.patience.of_standbys(), asked).await {
                Ok(Ok(token)) => return Ok(token),
                Ok(Err(error)) => {
                    debug!(?server, %error, "no JWT-SVID of this server; asking the next that has the entry")
                }
                Err(_) => debug!(?server, "this server is slow; asking the next that has the entry"),
            }
        }
        self.fetch_from(last, turns).await
    }

    async fn fetch_from(&self, wish: Wish, turns: Turns<'_>) -> Result<Arc<Token>, FetchError> {
        let terms = &wish.terms;
        // Each has an ID of its own, so none is kept. Where that is not known yet, it is assumed.
        if terms.unique_tokens != Some(false) {
            let _places = self.places(wish.terms.server, turns).await?;
            return self.0.signing.sign(&wish).await.map(Arc::new);
        }
        let Some(held) = self.held(&wish) else { return self.renew(wish, turns).await };
        if !held.is_due || (!held.is_in_its_last_part && self.0.signing.local(wish.terms.server).is_some()) {
            return Ok(held.token);
        }
        match tokio::time::timeout(self.0.patience.of_held(), self.renew(wish.clone(), turns)).await {
            Ok(Ok(renewed)) => Ok(renewed),
            Ok(Err(error)) => self.rest_of(&wish, error),
            Err(_) => self.rest_of(&wish, FetchError::Late),
        }
    }

    /// Drops what is no longer served, whenever something is published: tokens whose entry went or is for another ID, and tokens
    /// of a key that the bundle no longer has or that is tainted.
    pub async fn follow(self) {
        let mut identities = self.0.signing.identities.clone();
        while identities.changed().await.is_ok() {
            let all = identities.borrow_and_update().clone();
            let dropped = self.cache().keep_those_of(&all);
            if dropped > 0 {
                info!(
                    dropped,
                    held = self.cache().count(),
                    "JWT-SVIDs dropped: their entry is gone, or their key is tainted or gone"
                );
            }
        }
    }

    /// How many tokens are held.
    pub fn count(&self) -> usize {
        self.cache().count()
    }

    fn held(&self, wish: &Wish) -> Option<cache::Found> {
        let (all, moment) = (self.0.signing.identities.borrow().clone(), self.moment_of(wish.terms.server));
        let found = self.cache().find(wish, &moment, Instant::now())?;
        token::is_trusted(&found.token, &all).then_some(found)
    }

    async fn renew(&self, wish: Wish, turns: Turns<'_>) -> Result<Arc<Token>, FetchError> {
        if let Some(flight) = self.0.flights.join(&wish) {
            return flight.landed().await;
        }
        let places = self.places(wish.terms.server, turns).await?;
        // Somebody else may have done it while this one waited.
        if let Some(held) = self.held(&wish).filter(|held| !held.is_due) {
            return Ok(held.token);
        }
        let this = self.clone();
        let flight = self.0.flights.begin(&wish, |wish| async move {
            let signed = this.0.signing.sign(&wish).await;
            // Held until the call is over, also when nobody waits any more.
            drop(places);
            this.keep(wish, signed?)
        });
        flight.landed().await
    }

    /// Keeps a new token, unless the device's clock disputes it and what is held lasts longer.
    fn keep(&self, wish: Wish, token: Token) -> Result<Arc<Token>, FetchError> {
        let (token, moment) = (Arc::new(token), self.moment_of(wish.terms.server));
        let all = self.0.signing.identities.borrow().clone();
        let mut cache = self.cache();
        let held = cache.find(&wish, &moment, Instant::now()).filter(|held| token::is_trusted(&held.token, &all));
        let lasting = held.filter(|held| !moment.prefers(token.lifetime(), Some(held.token.lifetime())));
        if let Some(held) = lasting {
            return Ok(held.token);
        }
        // Of a key or an entry that went meanwhile nothing is kept; whoever waits for it gets it all the same, as from SPIRE.
        if token::is_trusted(&token, &all) && all.holds(&wish.terms) {
            cache.put(wish, token.clone(), &moment);
        }
        Ok(token)
    }

    /// What is left of a token that could not be renewed.
    fn rest_of(&self, wish: &Wish, error: FetchError) -> Result<Arc<Token>, FetchError> {
        self.cache().postpone(wish, Instant::now() + RENEWAL_PAUSE);
        let Some(held) = self.held(wish) else { return Err(error) };
        if let Some(pass) = self.0.lines.admit(wish.terms.spiffe_id.clone(), Instant::now()) {
            let (spiffe_id, suppressed) = (&wish.terms.spiffe_id, pass.suppressed);
            warn!(%spiffe_id, %error, suppressed, "a JWT-SVID could not be renewed; what is left of it is served");
        }
        Ok(held.token)
    }

    /// A place among the user's calls at this server, and one among all calls there: in this order, so that who waits for a place
    /// holds none.
    async fn places(
        &self,
        server: ServerNumber,
        turns: Turns<'_>,
    ) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), FetchError> {
        let (turns, calls) = (turns(server), server.own(&self.0.calls).clone());
        let both = async { Ok((turns.acquire_owned().await?, calls.acquire_owned().await?)) };
        match tokio::time::timeout(PATIENCE, both).await {
            Ok(Ok::<_, tokio::sync::AcquireError>(places)) => Ok(places),
            _ => Err(FetchError::Busy),
        }
    }

    fn cache(&self) -> MutexGuard<'_, TokenCache> {
        // Every change leaves the cache whole: a panic elsewhere cannot leave it half done.
        self.0.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
