//! Through which agent an SVID was fetched: its serial number says so to whoever asks about a certain agent.
//!
//! Rights at the server hang on a SPIFFE ID, and many agents may serve one. A banned agent's ban has to end what was fetched through it
//! and nothing else: over restarts, and at every server of a data store, without a table of all SVIDs.

use aws_lc_rs::digest::{Context, SHA256};
use ironroot_api::SpiffeId;

/// Bits of the serial number that say it; the others are random. With 10,000 banned agents one SVID in 28 billion is taken for one of
/// theirs.
const BITS: u32 = 48;
const MASK: u128 = (1 << BITS) - 1;
/// What every hash begins with: no other hash of ours does.
const DOMAIN: &[u8] = b"ironroot serial number 1\n";

/// The serial number of an SVID that is fetched through `agent`. `random`: of it all but the last `BITS` count, so that two of 2^40
/// have one number.
pub fn serial_through(agent: &SpiffeId, random: u128) -> u128 {
    let random = random & !MASK;
    random | mark(agent, random)
}

/// Whether the SVID with this decimal serial number was fetched through `agent`. Of one that no agent fetched, or an older server
/// signed, nobody can say so.
pub fn is_through(serial: &str, agent: &SpiffeId) -> bool {
    serial.parse::<u128>().is_ok_and(|serial| serial & MASK == mark(agent, serial & !MASK))
}

fn mark(agent: &SpiffeId, random: u128) -> u128 {
    let mut hash = Context::new(&SHA256);
    for part in [DOMAIN, &random.to_be_bytes(), agent.as_str().as_bytes()] {
        hash.update(part);
    }
    let bytes = hash.finish().as_ref()[..16].try_into().expect("SHA-256 has 32 bytes");
    u128::from_be_bytes(bytes) & MASK
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn agent(number: u32) -> SpiffeId {
        format!("spiffe://td/spire/agent/tpm2/{number}").parse().expect("legal")
    }

    #[test]
    fn a_serial_number_says_through_which_agent_its_svid_was_fetched_and_of_no_other_agent() {
        let randoms = (0..1000u128).map(|number| number << BITS).chain([u128::MAX, 0]);
        for random in randoms {
            let serial = serial_through(&agent(1), random).to_string();
            assert!(is_through(&serial, &agent(1)));
            assert!((2..10).all(|other| !is_through(&serial, &agent(other))), "{serial}");
        }
        for no_serial in ["", "-1", "0x1", "340282366920938463463374607431768211456"] {
            assert!(!is_through(no_serial, &agent(1)), "{no_serial}");
        }
    }

    #[test]
    fn what_is_random_in_a_serial_number_stays_so() {
        let serials: HashSet<u128> = (0..1000u128).map(|number| serial_through(&agent(1), number << BITS)).collect();
        assert_eq!(serials.len(), 1000);
        assert!(serials.iter().all(|serial| serial >> BITS < 1000));
    }
}
