//! Whom a change of entries concerns: those who follow an agent's view say below which parents its entries are, and are woken when an
//! entry there comes, goes or is another. So a change costs the work of those whom it concerns, and not of everybody who waits.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Stands for a parent. Two that share one are woken for each other, which costs a look.
pub(super) type ParentHash = u64;

/// What stands for the parent that the indices have under `key`.
pub(super) fn parent_hash(key: &[u8]) -> ParentHash {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}

/// Parents of one agent that are followed one by one. Who has more is woken by every change.
const MAX_PARENTS: usize = 1024;
/// Of all followers together, some 40 bytes each.
const MAX_REGISTRATIONS: usize = 512 * 1024;

/// Below which parents an entry would be the agent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// These, in order.
    Parents(Arc<[ParentHash]>),
    /// Too many to tell.
    Everywhere,
}

impl Default for Reach {
    /// Nowhere: nothing becomes this agent's.
    fn default() -> Self {
        Self::Parents([].into())
    }
}

impl Reach {
    /// Below the parents that the indices have under these keys.
    pub fn of<'k>(parents: impl Iterator<Item = &'k [u8]>) -> Self {
        let parents: BTreeSet<ParentHash> = parents.take(MAX_PARENTS + 1).map(parent_hash).collect();
        match parents.len() > MAX_PARENTS {
            true => Self::Everywhere,
            false => Self::Parents(parents.into_iter().collect()),
        }
    }
}

/// Those who wait, by what they wait for.
#[derive(Debug, Default)]
pub(super) struct Concerns(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    by_parent: BTreeMap<(ParentHash, u64), Arc<Notify>>,
    everywhere: BTreeMap<u64, Arc<Notify>>,
    next: u64,
}

/// One who waits. Gone with its end.
#[derive(Debug)]
pub(super) struct Concern {
    of: Arc<Concerns>,
    number: u64,
    notify: Arc<Notify>,
    reach: Reach,
}

impl Concerns {
    /// Somebody more, who waits for nothing yet.
    pub fn join(self: &Arc<Self>) -> Concern {
        let mut waiting = self.lock();
        waiting.next += 1;
        Concern { of: self.clone(), number: waiting.next, notify: Arc::default(), reach: Reach::default() }
    }

    /// Wakes those whom a change below these parents concerns.
    pub fn wake(&self, parents: &BTreeSet<ParentHash>) {
        let waiting = self.lock();
        for parent in parents {
            let here = (*parent, 0)..=(*parent, u64::MAX);
            waiting.by_parent.range(here).for_each(|(_, notify)| notify.notify_one());
        }
        if !parents.is_empty() {
            waiting.everywhere.values().for_each(|notify| notify.notify_one());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // What is found there is woken once too often at worst.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take_out(&mut self, number: u64, reach: &Reach) {
        match reach {
            Reach::Parents(parents) => parents.iter().for_each(|parent| _ = self.by_parent.remove(&(*parent, number))),
            Reach::Everywhere => _ = self.everywhere.remove(&number),
        }
    }

    /// Where there is no room for its parents, everywhere.
    fn put_in(&mut self, number: u64, reach: Reach, notify: &Arc<Notify>) -> Reach {
        match reach {
            Reach::Parents(parents) if self.by_parent.len() + parents.len() <= MAX_REGISTRATIONS => {
                let keys = parents.iter().map(|parent| ((*parent, number), notify.clone()));
                self.by_parent.extend(keys);
                Reach::Parents(parents)
            }
            _ => {
                self.everywhere.insert(number, notify.clone());
                Reach::Everywhere
            }
        }
    }
}

impl Concern {
    /// Waits for changes of that `reach` from now on; false if it did so already. Who gets true looks once more: what changed
    /// before woke nobody.
    pub fn follow(&mut self, reach: Reach) -> bool {
        if self.reach == reach || self.reach == Reach::Everywhere {
            return false;
        }
        let mut waiting = self.of.lock();
        waiting.take_out(self.number, &self.reach);
        self.reach = waiting.put_in(self.number, reach, &self.notify);
        true
    }

    /// Waits until there has been one since the last time.
    pub async fn come(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Concern {
    fn drop(&mut self) {
        self.of.lock().take_out(self.number, &self.reach);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn reach(parents: &[&str]) -> Reach {
        Reach::of(parents.iter().map(|parent| parent.as_bytes()))
    }

    fn keys(parents: &[&str]) -> BTreeSet<ParentHash> {
        parents.iter().map(|parent| parent_hash(parent.as_bytes())).collect()
    }

    fn is_woken(concern: &Concern) -> bool {
        concern.come().now_or_never().is_some()
    }

    #[test]
    fn a_change_wakes_those_whom_it_concerns_and_nobody_else() {
        let concerns = Arc::new(Concerns::default());
        let [mut one, mut both, mut none] = [(); 3].map(|()| concerns.join());
        assert!(one.follow(reach(&["a"])) && both.follow(reach(&["b", "a"])) && none.follow(reach(&["ab"])));
        assert!(!one.follow(reach(&["a"])) && !both.follow(reach(&["a", "b"])), "as before");
        let woken = || [&one, &both, &none].map(is_woken);
        concerns.wake(&keys(&["b"]));
        assert_eq!(woken(), [false, true, false]);
        assert_eq!(woken(), [false; 3], "once");
        concerns.wake(&keys(&["a", "b"]));
        assert_eq!(woken(), [true, true, false]);
        concerns.wake(&keys(&[]));
        assert_eq!(woken(), [false; 3]);
    }

    #[test]
    fn who_looks_elsewhere_is_woken_there_and_who_is_gone_leaves_nothing() {
        let concerns = Arc::new(Concerns::default());
        let mut concern = concerns.join();
        concern.follow(reach(&["a"]));
        assert!(concern.follow(reach(&["b"])));
        concerns.wake(&keys(&["a"]));
        assert!(!is_woken(&concern));
        concerns.wake(&keys(&["b"]));
        assert!(is_woken(&concern));
        drop(concern);
        assert!(concerns.lock().by_parent.is_empty() && concerns.lock().everywhere.is_empty());
    }

    #[test]
    fn who_has_more_parents_than_are_followed_is_woken_by_every_change() {
        let many: Vec<String> = (0..=MAX_PARENTS).map(|number| number.to_string()).collect();
        let of = |count: usize| Reach::of(many[..count].iter().map(|parent| parent.as_bytes()));
        assert!(matches!(of(MAX_PARENTS), Reach::Parents(parents) if parents.len() == MAX_PARENTS));
        assert_eq!(of(MAX_PARENTS + 1), Reach::Everywhere);
        let concerns = Arc::new(Concerns::default());
        let mut concern = concerns.join();
        assert!(concern.follow(of(MAX_PARENTS + 1)));
        concerns.wake(&keys(&["elsewhere"]));
        assert!(is_woken(&concern));
        drop(concern);
        assert!(concerns.lock().everywhere.is_empty());
    }

    #[test]
    fn who_finds_no_room_is_woken_by_every_change() {
        let concerns = Arc::new(Concerns::default());
        let most = MAX_REGISTRATIONS / MAX_PARENTS;
        let many: Vec<String> = (0..MAX_PARENTS).map(|number| number.to_string()).collect();
        let full = Reach::of(many.iter().map(|parent| parent.as_bytes()));
        let mut held: Vec<_> = (0..most).map(|_| concerns.join()).collect();
        held.iter_mut().for_each(|concern| assert!(concern.follow(full.clone())));
        assert_eq!(concerns.lock().by_parent.len(), MAX_REGISTRATIONS);
        let mut late = concerns.join();
        assert!(late.follow(reach(&["a"])) && !late.follow(reach(&["b"])));
        concerns.wake(&keys(&["b"]));
        assert!(is_woken(&late) && !is_woken(&held[0]));
    }
}
