//! What must hold of a device's time in every state, whoever looks: the simulation's random lives, and the model's every life.

use super::keeper::STEP;
use super::lifetime::Left;
use super::*;

/// A device, and what is true beside it.
pub(super) struct Observed<'a> {
    pub keeper: &'a Keeper,
    pub reading: Reading,
    /// The truth, UNIX seconds.
    pub now: i64,
    /// The chain it holds, and whether its issuer's clock was right.
    pub held: Option<(&'a Lifetime, bool)>,
    /// Kernel and server were ahead of the truth alike: nothing can protect from that, until both are right once.
    pub misled: bool,
}

impl Observed<'_> {
    /// The invariant that does not hold, if there is one.
    pub fn broken(&self) -> Option<String> {
        self.bound_is_ahead().or_else(|| self.serves_what_has_ended()).or_else(|| self.refuses_what_is_valid())
    }

    fn bound_is_ahead(&self) -> Option<String> {
        let ahead = self.keeper.confirmed(self.reading) - self.now;
        (!self.misled && ahead > 0).then(|| format!("the bound is {ahead} s ahead"))
    }

    fn serves_what_has_ended(&self) -> Option<String> {
        let (chain, honest) = self.held.filter(|(chain, _)| self.is_served(chain))?;
        let (not_after, kept) = (chain.span().not_after, is_kept(chain));
        let over = self.now - not_after;
        let agreed = self.keeper.standing() == ClockStanding::Confirmed;
        if honest && over > 10 && !kept {
            return Some(format!("an honest chain ended {over} s ago in this run and is served"));
        }
        // What it may have moved since it agreed is nobody's word; of a chain from the cache it counts all the same.
        let moved = if kept { 0 } else { STEP };
        if agreed && self.reading.kernel - AGREEMENT - moved > not_after {
            return Some("two witnesses agree that it ended, and it is served".to_owned());
        }
        let bound_says_so = kept && self.keeper.confirmed(self.reading) > not_after;
        bound_says_so.then(|| "the confirmed bound says that it ended, and it is served".to_owned())
    }

    fn refuses_what_is_valid(&self) -> Option<String> {
        let is_good = |chain: &Lifetime, honest| honest && !is_kept(chain) && chain.span().not_after > self.now;
        let refused = self.held.filter(|(chain, honest)| is_good(chain, *honest) && !self.is_served(chain));
        refused.filter(|_| !self.misled).map(|_| "a valid one is refused".to_owned())
    }

    fn is_served(&self, chain: &Lifetime) -> bool {
        self.keeper.end(chain, self.reading) > self.keeper.own(self.reading)
    }
}

/// Taken up from an earlier run, during which time may have passed uncounted.
pub(super) fn is_kept(chain: &Lifetime) -> bool {
    matches!(chain.left(), Left::Kept { .. })
}
