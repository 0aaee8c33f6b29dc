//! What was proven of a process, and counts on for a while when whoever said it cannot be asked. Pure but for the lock.
//!
//! That nobody answers is not the answer that there is no such container: a daemon that is restarted takes nobody's identity away. What is
//! kept is of this very process (it is kept with its [`Peer`](super::Peer)) and of the control groups that it was in.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use procfs::ProcessCGroups;

use crate::Selector;

/// How long it counts, from the first question in a row that could not be put: what an X509-SVID lasts unless somebody says otherwise.
/// Source: SPIRE, default_x509_svid_ttl.
pub(super) const LONGEST_KEPT: Duration = Duration::from_secs(60 * 60);

/// What others than the kernel have said of one process.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// PID 1, of the file of its unit.
    pub unit_file: Kept,
    /// Docker, podman or the kubelet.
    pub container: Kept,
}

/// What one of them said last.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Last>);

#[derive(Debug, Default)]
enum Last {
    /// Nothing was ever proven.
    #[default]
    Nothing,
    Proven(Proof),
    /// Something was, and counts no more.
    Forgotten,
}

#[derive(Debug)]
struct Proof {
    place: Vec<(u32, Vec<String>, String)>,
    selectors: Vec<Selector>,
    unasked_since: Option<Instant>,
}

impl Kept {
    /// `selectors` have just been proven of the process, in `groups`.
    pub fn prove(&self, groups: &ProcessCGroups, selectors: &[Selector]) {
        let (place, selectors) = (parts(groups), selectors.to_vec());
        *self.lock() = Last::Proven(Proof { place, selectors, unasked_since: None });
    }

    /// There was an answer, and it was another one. Whether anything was ever proven.
    pub fn forget(&self) -> bool {
        let mut last = self.lock();
        let was_proven = !matches!(*last, Last::Nothing);
        if was_proven {
            *last = Last::Forgotten;
        }
        was_proven
    }

    /// What counts of a process in `groups` if nobody can be asked `now`.
    pub fn instead(&self, groups: &ProcessCGroups, now: Instant) -> Option<Vec<Selector>> {
        let mut kept = self.lock();
        let Last::Proven(proof) = &mut *kept else { return None };
        if proof.place != parts(groups) {
            return None;
        }
        let since = *proof.unasked_since.get_or_insert(now);
        (now.saturating_duration_since(since) < LONGEST_KEPT).then(|| proof.selectors.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether both are the same groups.
pub(super) fn are_same(one: &ProcessCGroups, other: &ProcessCGroups) -> bool {
    parts(one) == parts(other)
}

fn parts(groups: &ProcessCGroups) -> Vec<(u32, Vec<String>, String)> {
    groups.0.iter().map(|group| (group.hierarchy, group.controllers.clone(), group.pathname.clone())).collect()
}

#[cfg(test)]
mod tests {
    use procfs::FromBufRead;

    use super::*;

    fn groups(path: &str) -> ProcessCGroups {
        ProcessCGroups::from_buf_read(format!("0::{path}\n").as_bytes()).expect("parses")
    }

    #[test]
    fn what_was_proven_counts_on_in_its_place_for_an_hour_of_questions_that_cannot_be_put() {
        let (kept, here, start) = (Kept::default(), groups("/docker/a"), Instant::now());
        assert!(!kept.forget());
        assert_eq!(kept.instead(&here, start), None, "nothing was proven");
        let selectors = ["docker:label:app:web".parse().expect("legal")];
        kept.prove(&here, &selectors);
        assert_eq!(kept.instead(&groups("/docker/b"), start), None, "it was moved");
        let day = start + Duration::from_secs(86_400);
        assert_eq!(kept.instead(&here, day).as_deref(), Some(&selectors[..]), "counted from the first question");
        let last = day + LONGEST_KEPT;
        assert!(kept.instead(&here, last - Duration::from_secs(1)).is_some());
        assert_eq!(kept.instead(&here, last), None);
        kept.prove(&here, &selectors);
        assert!(kept.instead(&here, last).is_some(), "proven anew");
        assert!(kept.forget());
        assert_eq!(kept.instead(&here, last), None, "there was another answer");
        assert!(kept.forget(), "it was something once");
    }
}
