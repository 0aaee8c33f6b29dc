//! Generation that fails: what to do before the next planned try.
//!
//! A generation is not repeated at once, as a signature is: it may have failed half-way, and the caller plans the next try. So
//! the remedies are climbed from try to try. A new epoch interrupts everybody who signs, so it has its pace.

use std::time::{Duration, Instant};

use crate::error::Remedy;

/// Longest pause between two epochs that are begun only because no key can be made: signing may be well all the time.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often in a row generation failed, and when an epoch was last begun for it.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    failures: u32,
    last_epoch: Option<Instant>,
}

impl Trouble {
    /// A key was made.
    pub(super) fn is_over(&mut self) {
        *self = Self::default();
    }

    /// What to do now that generation failed at `now` with an error that asks for `asked`.
    pub(super) fn remedy(&mut self, asked: Remedy, now: Instant) -> Remedy {
        if asked == Remedy::None {
            return Remedy::None;
        }
        self.failures = self.failures.saturating_add(1);
        let climbed = match self.failures {
            1 => Remedy::NewSession,
            2 => Remedy::NewLogin,
            _ => Remedy::NewEpoch,
        };
        let remedy = asked.max(climbed);
        if remedy != Remedy::NewEpoch {
            return remedy;
        }
        let since = self.last_epoch.map(|at| now.saturating_duration_since(at));
        if since.is_some_and(|since| since < pause(self.failures)) {
            return Remedy::NewSession;
        }
        self.last_epoch = Some(now);
        Remedy::NewEpoch
    }
}

/// 1 s, doubling with each failure.
fn pause(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.saturating_sub(2).min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_are_climbed_from_try_to_try_and_epochs_have_a_pace() {
        let (start, mut trouble) = (Instant::now(), Trouble::default());
        let mut at = |seconds, asked| trouble.remedy(asked, start + Duration::from_secs(seconds));
        assert_eq!(at(0, Remedy::None), Remedy::None);
        assert_eq!(at(0, Remedy::NewSession), Remedy::NewSession);
        assert_eq!(at(2, Remedy::NewSession), Remedy::NewLogin);
        assert_eq!(at(4, Remedy::NewSession), Remedy::NewEpoch);
        // The fourth pause is 4 s.
        assert_eq!(at(6, Remedy::NewEpoch), Remedy::NewSession);
        assert_eq!(at(20, Remedy::NewEpoch), Remedy::NewEpoch);
        trouble.is_over();
        assert_eq!(trouble.remedy(Remedy::NewEpoch, start), Remedy::NewEpoch);
    }

    #[test]
    fn a_token_that_never_makes_a_key_gets_an_epoch_a_minute() {
        let (start, mut trouble) = (Instant::now(), Trouble::default());
        let tries = (0..3600).step_by(2).map(|s| trouble.remedy(Remedy::NewEpoch, start + Duration::from_secs(s)));
        let epochs = tries.filter(|remedy| *remedy == Remedy::NewEpoch).count();
        assert!((55..75).contains(&epochs), "{epochs} epochs in an hour");
    }
}
