//! How long a command is repeated that the chip puts off.

use std::time::Duration;

use super::response_code as rc;

/// How long to insist on a command that the TPM puts off. Source: Part 1 §39.4, Part 2 §6.6.3 (warnings).
#[derive(Clone, Copy)]
pub struct Patience {
    first: Duration,
    longest: Duration,
    tries: u32,
}

impl Patience {
    /// The pause after `tries` failed tries; none when patience has ended.
    pub fn pause(self, tries: u32) -> Option<Duration> {
        //= FLT-T1 chip faults: "tried again a bounded number of times"
        (tries < self.tries).then(|| (self.first * 2u32.saturating_pow(tries.min(16))).min(self.longest))
    }
}

/// The patience that `code` deserves, if any. LOCKOUT is missing on purpose: trying again costs another mark.
//= FLT-T3 chip faults: "nothing is tried again"
pub fn patience(code: u16) -> Option<Patience> {
    let patience = |first, longest, tries| {
        Some(Patience { first: Duration::from_millis(first), longest: Duration::from_millis(longest), tries })
    };
    match code {
        // Could not start: about 8 s in all.
        rc::RETRY => patience(20, 2000, 10),
        // Suspended with progress made: at once.
        rc::YIELDED => patience(0, 0, 100),
        // Somebody cancelled it, such as a driver at suspend: 700 ms in all.
        rc::CANCELED => patience(100, 400, 3),
        // Self-test: about 30 s in all.
        rc::TESTING => patience(50, 2000, 20),
        // Sparing its flash: 7 s in all.
        rc::NV_RATE | rc::NV_UNAVAILABLE => patience(1000, 4000, 3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= FLT-T1
    #[test]
    fn pauses_grow_to_a_limit_and_end() {
        let retry = patience(rc::RETRY).expect("RETRY is repeated");
        let pauses: Vec<u128> = (0..12).map_while(|n| retry.pause(n)).map(|p| p.as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1280, 2000, 2000, 2000]);
    }

    //= TPM-34 FLT-T3
    #[test]
    fn a_lockout_is_never_tried_again() {
        assert!(patience(rc::LOCKOUT).is_none());
        assert!(patience(rc::BAD_AUTH).is_none());
    }
}
