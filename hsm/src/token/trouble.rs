//! Generation that fails: what to do before the next planned try.
//!
//! A generation is not repeated at once, as a signature is: it may have failed half-way, and the caller plans the next try. So
//! the remedies are climbed from try to try. A new epoch interrupts everybody who signs, so it has its pace.

use std::time::{Duration, Instant};

use crate::error::Remedy;

/// Longest pause between two epochs that are begun only because no key can be made: signing may be well all the time.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often in a row generation failed, and which epochs were begun for it.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    failures: u32,
    epochs: u32,
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
        let since = self.last_epoch.map(|at| now.saturating_duration_since(at));
        match asked.max(climbed) {
            Remedy::NewEpoch if since.is_some_and(|since| since < pause(self.epochs)) => Remedy::NewSession,
            remedy => remedy,
        }
    }

    /// Notes at `now` that the module was started anew on account of this trouble: the next time waits longer.
    pub(super) fn epoch_begun(&mut self, now: Instant) {
        self.epochs = self.epochs.saturating_add(1);
        self.last_epoch = Some(now);
    }
}

/// 1 s after the first epoch, then doubling.
fn pause(epochs: u32) -> Duration {
    Duration::from_secs(1 << epochs.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails at this second; what is done about it.
    fn fail(trouble: &mut Trouble, start: Instant, second: u64, asked: Remedy) -> Remedy {
        let now = start + Duration::from_secs(second);
        let remedy = trouble.remedy(asked, now);
        if remedy == Remedy::NewEpoch {
            trouble.epoch_begun(now);
        }
        remedy
    }

    #[test]
    fn remedies_are_climbed_from_try_to_try_and_epochs_have_a_pace() {
        use Remedy::{NewEpoch, NewLogin, NewSession};
        let (start, mut trouble) = (Instant::now(), Trouble::default());
        for (second, asked, expected) in [
            (0, Remedy::None, Remedy::None),
            (0, NewSession, NewSession),
            (2, NewSession, NewLogin),
            (4, NewSession, NewEpoch),
            (4, NewEpoch, NewSession),
            (6, NewEpoch, NewEpoch),
            (7, NewEpoch, NewSession),
            (8, NewEpoch, NewEpoch),
            (10, NewEpoch, NewSession),
            (12, NewEpoch, NewEpoch),
        ] {
            assert_eq!(fail(&mut trouble, start, second, asked), expected, "at {second} s");
        }
        trouble.is_over();
        assert_eq!(fail(&mut trouble, start, 13, NewEpoch), NewEpoch);
    }

    #[test]
    fn a_token_that_never_makes_a_key_gets_an_epoch_a_minute() {
        let (start, mut trouble) = (Instant::now(), Trouble::default());
        let remedies = (0..3600).step_by(2).map(|second| fail(&mut trouble, start, second, Remedy::NewEpoch));
        let epochs = remedies.filter(|remedy| *remedy == Remedy::NewEpoch).count();
        assert!((60..70).contains(&epochs), "{epochs} epochs in an hour");
    }
}
