//! One certificate that is used in turns from two addresses: a copy of a chip, or of a key, that works beside the original.
//!
//! An agent that moved or dialled anew leaves its old connection behind. One that goes back to a connection which was opened
//! before the other, from another address, again and again, is two.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ironroot_api::SpiffeId;
use tokio::time::Instant;

/// Ways back to an older connection from another address that are evidence: a call that was under way while the agent dialled
/// anew makes one.
const TURNS: u32 = 3;
/// A connection that was not used for this long is over; so long, too, until the same is said again.
const MEMORY: Duration = Duration::from_secs(31 * 60);
/// Agents remembered: as many as there may be connections of agents. Past it those that rest are forgotten, then all.
const MAX_AGENTS: usize = 65_536;

/// Who used which connection last.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<SpiffeId, Use>>);

#[derive(Clone, Copy, Debug)]
struct Use {
    opened: Instant,
    address: SocketAddr,
    seen: Instant,
    turns: u32,
    told: Option<Instant>,
}

impl Turns {
    /// `agent` asks over a connection of `address` that was opened at `opened`. The other address, when that is evidence and was
    /// not told lately.
    pub fn note(&self, agent: &SpiffeId, opened: Instant, address: SocketAddr, now: Instant) -> Option<SocketAddr> {
        // Plain values: a panic leaves the map whole.
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if uses.len() >= MAX_AGENTS && !uses.contains_key(agent) {
            uses.retain(|_, last| now.saturating_duration_since(last.seen) < MEMORY);
            if uses.len() >= MAX_AGENTS {
                uses.clear();
            }
        }
        let fresh = Use { opened, address, seen: now, turns: 0, told: None };
        let last = uses.entry(agent.clone()).or_insert(fresh);
        let before = *last;
        let turns = before.turns + u32::from(is_a_way_back(&before, opened, address.ip(), now));
        *last = Use { opened, address, seen: now, turns, told: before.told };
        let told_lately = before.told.is_some_and(|told| now.saturating_duration_since(told) < MEMORY);
        if turns < TURNS || told_lately {
            return None;
        }
        *last = Use { turns: 0, told: Some(now), ..*last };
        Some(before.address)
    }
}

fn is_a_way_back(last: &Use, opened: Instant, ip: IpAddr, now: Instant) -> bool {
    opened < last.opened && ip != last.address.ip() && now.saturating_duration_since(last.seen) < MEMORY
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 4000).into()
    }

    fn agent() -> SpiffeId {
        SpiffeId::parse("spiffe://td/spire/agent/tpm2/a").expect("legal")
    }

    /// What is told of calls over connections, each given by its address and when it was opened, a second apart.
    fn told(calls: &[(u8, u64)]) -> Vec<Option<SocketAddr>> {
        let (turns, start) = (Turns::default(), Instant::now());
        let call = |(number, (last, opened)): (usize, &(u8, u64))| {
            let now = start + SECOND * (100 + u32::try_from(number).expect("few"));
            turns.note(&agent(), start + SECOND * u32::try_from(*opened).expect("few"), address(*last), now)
        };
        calls.iter().enumerate().map(call).collect()
    }

    #[test]
    fn a_certificate_that_is_used_in_turns_from_two_addresses_is_told_once() {
        let calls: Vec<(u8, u64)> = (0..20).map(|call| if call % 2 == 0 { (1, 0) } else { (2, 1) }).collect();
        let told = told(&calls);
        assert_eq!(told.iter().flatten().collect::<Vec<_>>(), [&address(2)], "{told:?}");
        assert_eq!(told[6], Some(address(2)), "at the third way back");
    }

    #[test]
    fn an_agent_that_moves_dials_anew_or_asks_twice_at_once_is_one() {
        for calls in [
            // It moves on and on.
            (0..20).map(|call| (call as u8, call)).collect::<Vec<_>>(),
            // It dials anew behind one address; both connections are used.
            (0..20).map(|call| (1, call % 2)).collect(),
            // A call under way while it moved.
            vec![(1, 0), (2, 1), (1, 0), (2, 1), (2, 1), (2, 1)],
        ] {
            assert!(told(&calls).iter().all(Option::is_none), "{calls:?}");
        }
    }

    #[test]
    fn the_agents_remembered_are_bounded() {
        let (turns, now) = (Turns::default(), Instant::now());
        for number in 0..MAX_AGENTS + 10 {
            let agent = SpiffeId::parse(&format!("spiffe://td/spire/agent/tpm2/{number}")).expect("legal");
            assert_eq!(turns.note(&agent, now, address(1), now), None);
        }
        assert!(turns.0.lock().expect("whole").len() <= MAX_AGENTS);
    }
}
