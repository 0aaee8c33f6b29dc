//! Something there is only so much of, shared so that nobody can take it all: a source may hold no more than a portion of what
//! is still free. With an eighth, one source gets a ninth of all, and sixteen greedy ones leave room for the next.
//!
//! Source: Choudhury and Hahne, "Dynamic Queue Length Thresholds", 1998.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is shared, in units of the caller's (bytes, calls). Clones share it.
#[derive(Clone, Debug)]
pub struct FairShare<K>(Arc<Inner<K>>);

#[derive(Debug)]
struct Inner<K> {
    in_all: usize,
    per_source: usize,
    portion: usize,
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    in_all: usize,
    /// Those that hold something: no more than units.
    by_source: HashMap<K, usize>,
}

/// What one holder has; given back on drop.
pub struct Share<K: Eq + Hash> {
    of: FairShare<K>,
    source: K,
    amount: usize,
}

impl<K: Eq + Hash + Clone> FairShare<K> {
    /// `in_all` units; of them at most `per_source` for one source, however much is free, and at most one in `portion` of what
    /// is free (1: all of it).
    pub fn new(in_all: usize, per_source: usize, portion: usize) -> Self {
        let held = Held { in_all: 0, by_source: HashMap::new() };
        Self(Arc::new(Inner { in_all, per_source, portion, held: Mutex::new(held) }))
    }

    /// `amount` units for `source`, if it may hold that many more.
    pub fn take(&self, source: K, amount: usize) -> Option<Share<K>> {
        let mut share = Share { of: self.clone(), source, amount: 0 };
        share.grow(amount).then_some(share)
    }
}

impl<K: Eq + Hash> FairShare<K> {
    /// Units that are held, of all sources.
    pub fn taken(&self) -> usize {
        self.held().in_all
    }

    fn held(&self) -> MutexGuard<'_, Held<K>> {
        // Plain numbers, changed together under the lock: nothing panics between.
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Share<K> {
    /// Takes `more` units; false, and nothing changed, if the source may not hold that many.
    #[must_use]
    pub fn grow(&mut self, more: usize) -> bool {
        let mut held = self.of.held();
        let own = held.by_source.get(&self.source).copied().unwrap_or(0);
        let free = self.of.0.in_all - held.in_all;
        let wanted = own.saturating_add(more);
        if wanted > self.of.0.per_source || wanted > free / self.of.0.portion {
            return false;
        }
        held.in_all += more;
        held.by_source.insert(self.source.clone(), wanted);
        self.amount += more;
        true
    }
}

impl<K: Eq + Hash> Share<K> {
    /// Gives everything back and keeps the place in the books.
    pub fn release(&mut self) {
        let mut held = self.of.held();
        held.in_all -= self.amount;
        let left = held.by_source.get_mut(&self.source).map(|own| {
            *own -= self.amount;
            *own
        });
        if left == Some(0) {
            held.by_source.remove(&self.source);
        }
        self.amount = 0;
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<K: Eq + Hash> fmt::Debug for Share<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({})", self.amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(shared: &FairShare<usize>, source: usize) -> Vec<Share<usize>> {
        std::iter::from_fn(|| shared.take(source, 1)).collect()
    }

    #[test]
    fn one_source_gets_a_ninth_and_many_leave_room_for_the_next() {
        let shared = FairShare::new(1024, usize::MAX, 8);
        let greedy: Vec<_> = (0..16).map(|source| taken(&shared, source)).collect();
        assert_eq!(greedy[0].len(), 1024 / 9);
        assert!(taken(&shared, 99).len() > 10, "16 greedy sources leave too little");
    }

    #[test]
    fn a_source_never_exceeds_its_own_bound_and_all_never_the_whole() {
        let shared = FairShare::new(100, 10, 1);
        let all: Vec<_> = (0..1000).map(|source| taken(&shared, source)).collect();
        assert!(all.iter().all(|shares| shares.len() <= 10));
        assert!(shared.held().in_all <= 100);
        drop(all);
        let held = shared.held();
        assert_eq!((held.in_all, held.by_source.len()), (0, 0));
    }

    #[test]
    fn what_was_refused_changes_nothing_and_what_was_released_can_be_had_again() {
        let shared = FairShare::new(100, 100, 1);
        let mut share = shared.take(1, 30).expect("free");
        assert!(!share.grow(50));
        assert_eq!(shared.held().in_all, 30);
        share.release();
        assert!(share.grow(50));
        assert_eq!(shared.held().in_all, 50);
    }
}
