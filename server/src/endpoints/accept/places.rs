//! A bounded number of places, of which nobody can take all: who is at its own bound makes room itself; when every place is
//! taken, the oldest of whoever holds most gives way to a newcomer.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::activity::Activity;

/// A place is not taken from its holder for another of the same source while it is younger than this: of a fleet that comes
/// back all at once behind one address, those that came first get through.
const GRACE: Duration = Duration::from_secs(2);

/// The places. Clones share them.
#[derive(Clone, Debug)]
pub struct Places<K>(Arc<Inner<K>>);

#[derive(Debug)]
struct Inner<K> {
    in_all: usize,
    per_source: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    taken: usize,
    next: u64,
    /// Oldest first. No source without a place is here.
    by_source: HashMap<K, VecDeque<Taken>>,
}

#[derive(Debug)]
struct Taken {
    number: u64,
    since: Instant,
    activity: Arc<Activity>,
    // Dropped, it tells the holder to go.
    _stay: oneshot::Sender<()>,
}

/// A taken place; free again when dropped.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    of: Places<K>,
    source: K,
    number: u64,
    stay: oneshot::Receiver<()>,
}

impl<K: Eq + Hash + Clone> Places<K> {
    /// `in_all` places, of them at most `per_source` for one source.
    pub fn new(in_all: usize, per_source: usize) -> Self {
        let state = State { taken: 0, next: 0, by_source: HashMap::new() };
        Self(Arc::new(Inner { in_all, per_source, state: Mutex::new(state) }))
    }

    /// A place for `source`, if need be another's. None if the source would have to make room itself and everything it has
    /// is young or at work.
    pub fn take(&self, source: K, activity: Arc<Activity>, now: Instant) -> Option<Place<K>> {
        let mut state = self.state();
        let own = state.by_source.get(&source).map_or(0, VecDeque::len);
        let made_room = if own >= self.0.per_source {
            state.make_room_within(&source, now)
        } else if state.taken < self.0.in_all {
            true
        } else {
            match state.largest() {
                Some((key, most)) if most > own => state.make_room_for_another(&key),
                _ => state.make_room_within(&source, now),
            }
        };
        made_room.then(|| {
            let (number, stay) = state.add(source.clone(), activity, now);
            Place { of: self.clone(), source, number, stay }
        })
    }
}

impl<K: Eq + Hash> Places<K> {
    fn state(&self) -> MutexGuard<'_, State<K>> {
        // Changed together under the lock by calls that do not panic.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> State<K> {
    /// Who holds most, and how many; of several who hold as many, the one whose first has been there longest. Looks at every source.
    fn largest(&self) -> Option<(K, usize)> {
        let by_rank = |(_, taken): &(&K, &VecDeque<Taken>)| (taken.len(), Reverse(taken.front().map(|t| t.since)));
        self.by_source.iter().max_by_key(by_rank).map(|(key, taken)| (key.clone(), taken.len()))
    }
}

impl<K: Eq + Hash> State<K> {
    fn add(&mut self, source: K, activity: Arc<Activity>, now: Instant) -> (u64, oneshot::Receiver<()>) {
        let (stay, told) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.taken += 1;
        self.by_source.entry(source).or_default().push_back(Taken { number, since: now, activity, _stay: stay });
        (number, told)
    }

    fn make_room_within(&mut self, source: &K, now: Instant) -> bool {
        let may_go = |t: &Taken| t.activity.is_idle() && now.saturating_duration_since(t.since) >= GRACE;
        self.by_source.get(source).and_then(|taken| taken.iter().find(|t| may_go(t))).map(|t| t.number).is_some_and(
            |number| {
                self.remove(source, number);
                true
            },
        )
    }

    /// The oldest that has nothing to do goes, or else the oldest.
    fn make_room_for_another(&mut self, source: &K) -> bool {
        let taken = self.by_source.get(source);
        let victim = taken.and_then(|taken| taken.iter().find(|t| t.activity.is_idle()).or_else(|| taken.front()));
        victim.map(|t| t.number).is_some_and(|number| {
            self.remove(source, number);
            true
        })
    }

    fn remove(&mut self, source: &K, number: u64) {
        let Some(taken) = self.by_source.get_mut(source) else { return };
        let before = taken.len();
        taken.retain(|t| t.number != number);
        self.taken -= before - taken.len();
        if taken.is_empty() {
            self.by_source.remove(source);
        }
    }
}

impl<K: Eq + Hash> Place<K> {
    /// Done when the place goes to somebody else.
    pub fn lost(&mut self) -> impl Future<Output = ()> + Send + '_ {
        let stay = &mut self.stay;
        async move {
            // Nothing is ever sent: the other end was dropped.
            let _ = stay.await;
        }
    }

    /// The same, to be polled by a connection.
    pub fn poll_lost(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        std::pin::Pin::new(&mut self.stay).poll(cx).is_ready()
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        self.of.state().remove(&self.source, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn idle() -> Arc<Activity> {
        Arc::default()
    }

    fn is_lost(place: &mut Place<usize>) -> bool {
        place.stay.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn a_newcomer_gets_the_oldest_place_of_whoever_holds_most() {
        let (places, now) = (Places::new(8, 8), Instant::now());
        let mut greedy: Vec<_> = (0..6).map(|_| places.take(1, idle(), now).expect("free")).collect();
        let mut modest: Vec<_> = (0..2).map(|_| places.take(2, idle(), now).expect("free")).collect();
        let _newcomer = places.take(3, idle(), now).expect("the oldest of the greedy one gives way");
        assert!(is_lost(&mut greedy[0]) && !is_lost(&mut greedy[1]));
        assert!(modest.iter_mut().all(|place| !is_lost(place)));
        assert_eq!(places.state().taken, 8);
    }

    #[test]
    fn where_all_hold_one_the_oldest_gives_way() {
        let (places, now) = (Places::new(4, 4), Instant::now());
        let mut held: Vec<_> = (0..4_u64)
            .map(|n| places.take(n as usize, idle(), now + Duration::from_millis(4 - n)).expect("free"))
            .collect();
        let _newcomer = places.take(9, idle(), now + GRACE).expect("room");
        assert!(is_lost(&mut held[3]), "the oldest of all");
    }

    #[test]
    fn at_its_own_bound_a_source_makes_room_itself_but_not_from_what_is_young_or_at_work() {
        let (places, now) = (Places::new(100, 2), Instant::now());
        let at_work = idle();
        let call = Activity::begin_call(&at_work);
        let mut first = places.take(1, at_work, now).expect("free");
        let mut second = places.take(1, idle(), now).expect("free");
        assert!(places.take(1, idle(), now).is_none(), "both are young");
        let _third = places.take(1, idle(), now + GRACE).expect("the idle one gives way");
        assert!(!is_lost(&mut first) && is_lost(&mut second));
        drop(call);
        let _fourth = places.take(1, idle(), now + GRACE).expect("the first one has nothing to do any more");
        assert!(is_lost(&mut first));
    }

    /// A source whose copies are counted: whoever is found to hold most is copied out of the books.
    #[derive(Debug)]
    struct Counted(usize, Arc<AtomicUsize>);

    impl Clone for Counted {
        fn clone(&self) -> Self {
            self.1.fetch_add(1, Ordering::Relaxed);
            Self(self.0, self.1.clone())
        }
    }

    impl PartialEq for Counted {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }

    impl Eq for Counted {}

    impl Hash for Counted {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    #[test]
    fn whoever_holds_most_is_looked_for_only_when_all_places_are_taken() {
        let (places, now, copies) = (Places::new(100, 2), Instant::now(), Arc::default());
        let take = |source| places.take(Counted(source, Arc::clone(&copies)), idle(), now);
        let mut held: Vec<_> = (0..99).map(|source| take(source).expect("free")).collect();
        held.push(take(0).expect("free"));
        assert!(take(0).is_none(), "both of its own are young");
        assert_eq!(copies.swap(0, Ordering::Relaxed), 100, "one for each place, of who takes it");
        let _newcomer = take(200).expect("another's");
        assert_eq!(copies.load(Ordering::Relaxed), 2, "the newcomer, and who holds most");
    }

    #[test]
    fn what_is_dropped_leaves_nothing() {
        let (places, now) = (Places::new(4, 4), Instant::now());
        let held: Vec<_> = (0..9).filter_map(|source| places.take(source, idle(), now)).collect();
        assert_eq!(held.len(), 9);
        drop(held);
        let state = places.state();
        assert_eq!((state.taken, state.by_source.len()), (0, 0));
    }
}
