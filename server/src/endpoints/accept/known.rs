//! Addresses at which agents have shown their certificates: room is kept for them when strangers crowd the port.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::address::AddressBlock;

/// Addresses in one generation; two are remembered. Each is about 40 bytes.
const GENERATION: usize = 65_536;

/// Where agents were seen last. Forgets the older half when there are too many.
#[derive(Debug, Default)]
pub struct KnownAddresses(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<AddressBlock>,
    old: HashSet<AddressBlock>,
}

impl KnownAddresses {
    /// An agent has connected from there.
    pub fn seen(&self, address: AddressBlock) {
        let mut generations = self.generations();
        if generations.young.insert(address) && generations.young.len() > GENERATION {
            generations.old = std::mem::take(&mut generations.young);
            generations.young.insert(address);
        }
    }

    /// Whether an agent was there.
    pub fn contains(&self, address: AddressBlock) -> bool {
        let generations = self.generations();
        generations.young.contains(&address) || generations.old.contains(&address)
    }

    fn generations(&self) -> MutexGuard<'_, Generations> {
        // Sets of plain values: a panic leaves them whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> AddressBlock {
        std::net::IpAddr::V4(Ipv4Addr::from_bits(number)).into()
    }

    #[test]
    fn the_newest_addresses_are_remembered_and_their_number_is_bounded() {
        let known = KnownAddresses::default();
        (0..300_000).for_each(|number| known.seen(address(number)));
        let generations = known.generations();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION);
        drop(generations);
        assert!(known.contains(address(299_999)) && known.contains(address(299_999 - GENERATION as u32)));
        assert!(!known.contains(address(0)));
    }
}
