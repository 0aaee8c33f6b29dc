//! Tokens that are held. Pure: the moment and the randomness are arguments.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use ironroot_api::SpiffeId;
use ironroot_api::jwt::Audiences;

use super::token::{Token, Wish, is_trusted};
use crate::identities::Identities;
use crate::server_answers::EntryKey;
use crate::server_number::ServerNumber;
use crate::trusted_time::Moment;

/// Most tokens held. Source: SPIRE, DefaultSVIDCacheMaxSize.
pub(super) const MAX_TOKENS: usize = 1000;
/// Most bytes of tokens and audiences held: a thousand usual ones.
pub(super) const MAX_CACHE_BYTES: usize = 1024 * 1024;

/// One part in this many of a token's life is its last.
const LAST_PART: i64 = 3;

/// An entry and the audiences. Not the SPIFFE ID, as in SPIRE: two entries of one ID may differ in how long their tokens live,
/// and the tokens of an entry go with it.
type Key = (EntryKey, Audiences);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct TokenCache {
    tokens: BTreeMap<Key, Held>,
    bytes: usize,
    /// Counts uses, so that the one that is longest ago is known.
    uses: u64,
}

#[derive(Debug)]
struct Held {
    token: Arc<Token>,
    spiffe_id: SpiffeId,
    /// It is renewed once no more seconds than this are left.
    renewed_at: i64,
    not_before: Option<Instant>,
    used: u64,
}

/// A token that holds.
#[derive(Debug)]
pub(super) struct Found {
    pub token: Arc<Token>,
    /// Half of its life is over, and it was not tried in vain a moment ago to renew it.
    pub is_due: bool,
    /// No more than a third of its life is left: while the server is away it is replaced then, as X509-SVIDs are.
    pub is_in_its_last_part: bool,
}

impl TokenCache {
    /// The token for this wish, if it has not ended.
    pub(super) fn find(&mut self, wish: &Wish, moment: &Moment, now: Instant) -> Option<Found> {
        self.uses += 1;
        let held = self.tokens.get_mut(&key(wish))?;
        let left = moment.remaining(held.token.lifetime());
        if left <= 0 || held.spiffe_id != wish.terms.spiffe_id {
            return None;
        }
        held.used = self.uses;
        let is_postponed = held.not_before.is_some_and(|not_before| now < not_before);
        let is_in_its_last_part = left.saturating_mul(LAST_PART) <= held.token.lifetime().span().length();
        Some(Found { token: held.token.clone(), is_due: left <= held.renewed_at && !is_postponed, is_in_its_last_part })
    }

    /// Holds a token, if need be in the place of others: those of the entry that has most.
    pub(super) fn put(&mut self, wish: Wish, token: Arc<Token>, moment: &Moment) {
        self.uses += 1;
        let renewed_at = moment.remaining(token.lifetime()) / 2;
        let (spiffe_id, used) = (wish.terms.spiffe_id.clone(), self.uses);
        self.take(&key(&wish));
        self.bytes += bytes(&wish.audiences, &token);
        self.tokens.insert(key(&wish), Held { token, spiffe_id, renewed_at, not_before: None, used });
        while self.tokens.len() > MAX_TOKENS || self.bytes > MAX_CACHE_BYTES {
            let Some(victim) = self.who_gives_way() else { break };
            self.take(&victim);
        }
    }

    /// It could not be renewed: not tried again before.
    pub(super) fn postpone(&mut self, wish: &Wish, until: Instant) {
        if let Some(held) = self.tokens.get_mut(&key(wish)) {
            held.not_before = Some(until);
        }
    }

    /// Drops the tokens whose entry is not in `all` any more or is for another ID, and those of keys that are not trusted any
    /// more; how many.
    pub fn keep_those_of(&mut self, all: &Identities) -> usize {
        if self.tokens.is_empty() {
            return 0;
        }
        let entries: HashMap<(ServerNumber, &str), &SpiffeId> =
            all.known_entries().map(|terms| ((terms.server, terms.id.as_str()), &terms.spiffe_id)).collect();
        let before = self.tokens.len();
        self.tokens.retain(|(entry, _), held| {
            entries.get(&(entry.server, entry.id.as_str())) == Some(&&held.spiffe_id) && is_trusted(&held.token, all)
        });
        self.bytes = self.tokens.iter().map(|((_, audiences), held)| bytes(audiences, &held.token)).sum();
        before - self.tokens.len()
    }

    /// How many tokens are held.
    pub fn count(&self) -> usize {
        self.tokens.len()
    }

    fn take(&mut self, key: &Key) {
        if let Some(held) = self.tokens.remove(key) {
            self.bytes -= bytes(&key.1, &held.token);
        }
    }

    /// Of the entry that has most tokens, the one whose use is longest ago: so one workload that asks for ever other audiences
    /// takes the room of its own tokens and not of its neighbours'.
    fn who_gives_way(&self) -> Option<Key> {
        let mut counts: HashMap<&EntryKey, usize> = HashMap::new();
        for (entry, _) in self.tokens.keys() {
            *counts.entry(entry).or_default() += 1;
        }
        let largest = *counts.iter().max_by_key(|(_, count)| **count)?.0;
        let theirs = self.tokens.iter().filter(|((entry, _), _)| entry == largest);
        theirs.min_by_key(|(_, held)| held.used).map(|(key, _)| key.clone())
    }
}

fn key(wish: &Wish) -> Key {
    (wish.terms.key(), wish.audiences.clone())
}

/// What a token and its key take, bytes.
fn bytes(audiences: &Audiences, token: &Token) -> usize {
    audiences.bytes() + token.text().len()
}

#[cfg(test)]
mod tests;
