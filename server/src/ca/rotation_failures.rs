//! All that failed in one round of the rotation: what is harmless hides nothing that is not.

use std::fmt;

use ironroot_shell::command_line::describe;

use super::CaError;
use super::purpose::Purpose;
use super::rotation::Step;

/// What a round of the rotation tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// To write down what the clock counted, and to read what other servers wrote. Nothing is planned without.
    UseStore,
    /// A step of the plan.
    Do(Step),
    /// To have whoever may sign for this purpose at hand.
    FindSigners(Purpose),
    /// To find the root's key before it is needed.
    LookForRoot,
    /// To find the key that signs tokens of this kind.
    LookForTokenKey(Purpose),
    /// To find an administrator's key before it is needed.
    LookForFreeKey,
    /// To come to an end.
    Settle,
}

/// What failed in one round, in the order in which it was tried. Each is tried once, and holds up nothing that does not need it; so
/// there are no more of them than a round has attempts.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<(Attempt, CaError)>);

impl Attempt {
    /// Which tokens' keys alone depend on it; none if more does.
    pub(super) fn tokens(self) -> Option<Purpose> {
        match self {
            Self::LookForTokenKey(purpose) => Some(purpose),
            Self::FindSigners(purpose) => Some(purpose).filter(|purpose| purpose.signs_tokens()),
            Self::Do(step) => step.purpose().filter(|purpose| purpose.signs_tokens()),
            _ => None,
        }
    }
}

impl Failures {
    /// A round that failed at this.
    pub(super) fn of(attempt: Attempt, error: CaError) -> Self {
        Self(vec![(attempt, error)])
    }

    /// Remembers the error, if it is one; returns what was got if not.
    pub(super) fn note<T>(&mut self, attempt: Attempt, done: Result<T, CaError>) -> Option<T> {
        done.map_err(|error| self.0.push((attempt, error))).ok()
    }

    /// Remembers for which purposes it was not found who signs.
    pub(super) fn note_unfound(&mut self, failed: Vec<(Purpose, CaError)>) {
        self.0.extend(failed.into_iter().map(|(purpose, error)| (Attempt::FindSigners(purpose), error)));
    }

    /// `done` if nothing failed; a root that is awaited has not.
    pub(super) fn or<T>(self, done: T) -> Result<T, Self> {
        if self.failed().next().is_none() { Ok(done) } else { Err(self) }
    }

    /// What the root is awaited for, in words; none if it is not.
    pub(super) fn awaited(&self) -> Option<String> {
        self.0.iter().find(|(_, error)| error.awaits_root()).map(|(_, error)| describe(error))
    }

    /// What failed indeed.
    fn failed(&self) -> impl Iterator<Item = &(Attempt, CaError)> {
        self.0.iter().filter(|(_, error)| !error.awaits_root())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.failed().next().is_none()
    }

    pub(super) fn attempts(&self) -> impl Iterator<Item = Attempt> {
        self.failed().map(|(attempt, _)| *attempt)
    }

    /// The steps among them, and those that wait for the root.
    pub(super) fn steps(&self) -> Vec<Step> {
        self.0
            .iter()
            .map(|(attempt, _)| *attempt)
            .filter_map(|attempt| if let Attempt::Do(step) = attempt { Some(step) } else { None })
            .collect()
    }

    /// Why nobody signs, and what failed beside it; none if nothing failed.
    pub(super) fn why_nobody_signs(mut self) -> Option<(CaError, Self)> {
        let nearest = (0..self.0.len()).min_by_key(|number| distance_from_signing(&self.0[*number]))?;
        let (_, error) = self.0.remove(nearest);
        Some((error, self))
    }
}

/// How far what failed is from the signing of SVIDs: the CA's own reason comes before the root's, but where the CA waits for the root.
fn distance_from_signing((attempt, error): &(Attempt, CaError)) -> u8 {
    match attempt {
        Attempt::FindSigners(Purpose::X509Ca) => 0,
        Attempt::Do(step) if step.purpose() == Some(Purpose::X509Ca) && !matches!(error, CaError::NoRoot) => 1,
        Attempt::Do(step) if step.purpose() == Some(Purpose::Root) => 2,
        _ => 3,
    }
}

impl Failures {
    /// Each reason once, of what failed for the keys of these tokens alone, or of what concerns more.
    pub(super) fn reasons(&self, tokens: Option<Purpose>) -> String {
        joined(self.failed().filter(|(attempt, _)| attempt.tokens() == tokens))
    }
}

/// Each reason once.
impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(self.failed()))
    }
}

fn joined<'a>(failed: impl IntoIterator<Item = &'a (Attempt, CaError)>) -> String {
    let mut reasons: Vec<String> = Vec::new();
    for (_, error) in failed {
        let reason = describe(error);
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::journal::{Place, SlotName};

    const CA: Attempt = Attempt::Do(Step::Prepare(Place { purpose: Purpose::X509Ca, slot: SlotName::B }));
    const ROOT: Attempt = Attempt::Do(Step::Activate(Place { purpose: Purpose::Root, slot: SlotName::B }));

    fn failures(failed: Vec<(Attempt, CaError)>) -> Failures {
        Failures(failed)
    }

    #[test]
    fn where_nobody_signs_the_cas_own_reason_is_told_unless_it_only_waits_for_the_root() {
        let own = failures(vec![(ROOT, CaError::TooManyUsedKeys), (CA, CaError::Interrupted)]);
        let (reason, beside) = own.why_nobody_signs().unwrap();
        assert!(matches!(reason, CaError::Interrupted), "{reason}");
        assert!(beside.to_string().contains("keys of the HSM's administrator were used"), "{beside}");
        let roots = failures(vec![(ROOT, CaError::TooManyUsedKeys), (CA, CaError::NoRoot)]);
        let (reason, _) = roots.why_nobody_signs().unwrap();
        assert!(matches!(reason, CaError::TooManyUsedKeys), "{reason}");
        let found =
            failures(vec![(CA, CaError::Interrupted), (Attempt::FindSigners(Purpose::X509Ca), CaError::NothingSigns)]);
        let (reason, _) = found.why_nobody_signs().unwrap();
        assert!(matches!(reason, CaError::NothingSigns), "{reason}");
        assert!(Failures::default().why_nobody_signs().is_none());
    }

    #[test]
    fn all_that_failed_is_told_together_and_each_reason_once() {
        let mut failures = Failures::of(ROOT, CaError::TooManyUsedKeys);
        assert_eq!(failures.note(Attempt::LookForFreeKey, Ok(1)), Some(1));
        failures.note(CA, Err::<(), _>(CaError::Interrupted));
        failures.note(Attempt::LookForRoot, Err::<(), _>(CaError::Interrupted));
        assert_eq!(failures.to_string().matches("a signing task ended early").count(), 1, "{failures}");
        assert!(failures.to_string().contains("were used, and no more are remembered"), "{failures}");
        assert_eq!(failures.steps().len(), 2);
        let has = |attempt| failures.attempts().any(|failed| failed == attempt);
        assert!(has(Attempt::LookForRoot) && !has(Attempt::LookForFreeKey));
        assert!(failures.or(()).is_err() && Failures::default().or(()).is_ok());
    }
}
