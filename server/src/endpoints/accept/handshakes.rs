//! How many handshakes are under way, in all and from each address: clients that never finish one cannot keep others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Handshakes under way at once: each costs about 300 µs of CPU and 30 kB.
const MAX: usize = 1024;
/// From this many on, an address that holds more than [`FAIR_SHARE`] gets no further one. Below it any number is let in: a
/// fleet behind one address comes back all at once after a power cut.
const CROWDED: usize = MAX / 2;
/// What one address may hold when it is crowded.
const FAIR_SHARE: usize = MAX / 16;

/// Counts handshakes.
#[derive(Clone, Debug, Default)]
pub(super) struct Handshakes(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A handshake under way; over when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    handshakes: Handshakes,
    address: IpAddr,
}

impl Handshakes {
    /// Begins one for `address`, or refuses it.
    pub fn begin(&self, address: IpAddr) -> Option<Slot> {
        let mut counts = self.counts();
        let of_address = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.all >= MAX || (counts.all >= CROWDED && of_address >= FAIR_SHARE) {
            return None;
        }
        counts.all += 1;
        counts.by_address.insert(address, of_address + 1);
        Some(Slot { handshakes: self.clone(), address })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Plain numbers, changed together under the lock: nothing panics between.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.handshakes.counts();
        counts.all -= 1;
        match counts.by_address.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.by_address.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    #[test]
    fn one_address_fills_half_and_leaves_room_for_others() {
        let handshakes = Handshakes::default();
        let mut greedy: Vec<Slot> = std::iter::from_fn(|| handshakes.begin(address(1))).collect();
        assert_eq!(greedy.len(), CROWDED);
        let others: Vec<Slot> = std::iter::from_fn(|| handshakes.begin(address(2))).collect();
        assert_eq!(others.len(), FAIR_SHARE);
        assert!(handshakes.begin(address(3)).is_some());
        greedy.clear();
        assert!(handshakes.begin(address(1)).is_some(), "room again once its own have ended");
    }

    #[test]
    fn many_addresses_fill_it_to_the_bound_and_the_end_of_all_leaves_nothing() {
        let handshakes = Handshakes::default();
        let slots: Vec<Slot> = (0..=255).cycle().map_while(|number| handshakes.begin(address(number))).collect();
        assert_eq!(slots.len(), MAX);
        drop(slots);
        let counts = handshakes.counts();
        assert_eq!((counts.all, counts.by_address.len()), (0, 0));
    }
}
