//! Giving up what a daemon may do beyond an ordinary user.
//!
//! Source: capabilities(7).

use caps::{CapSet, CapsHashSet};
use thiserror::Error;

pub use caps::Capability;

/// Why capabilities cannot be dropped.
#[derive(Debug, Error)]
pub enum CapabilityError {
    /// Capabilities belong to threads, so they must be dropped before there is a second one.
    #[error("capabilities must be dropped before other threads start")]
    OtherThreads,
    /// The kernel refused.
    #[error("cannot change the process's capabilities")]
    System(#[source] caps::errors::CapsError),
}

/// Gives up every capability except `keep`, for good, also for programs started later.
///
/// Must be called while the process has one thread. What is in `keep` but not held is not gained.
pub fn drop_all_except(keep: &[Capability]) -> Result<(), CapabilityError> {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
    if !matches!(threads, Ok(1)) {
        return Err(CapabilityError::OtherThreads);
    }
    let keep: CapsHashSet = keep.iter().copied().collect();
    drop_of_this_thread(&keep).map_err(CapabilityError::System)
}

fn drop_of_this_thread(keep: &CapsHashSet) -> Result<(), caps::errors::CapsError> {
    let kept = |set| -> Result<CapsHashSet, caps::errors::CapsError> {
        Ok(caps::read(None, set)?.intersection(keep).copied().collect())
    };
    // The bounding set first: shrinking it takes CAP_SETPCAP, which goes with the effective set.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(keep) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        let kept = kept(set)?;
        // Who has nothing to give up need not be allowed to: a unit's system call filter may forbid capset.
        if caps::read(None, set)? != kept {
            caps::set(None, set, &kept)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_to_drop_in_one_thread_of_several() {
        std::thread::scope(|scope| {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || stopped.recv());
            assert!(matches!(drop_all_except(&[]), Err(CapabilityError::OtherThreads)));
            drop(stop);
        });
    }

    #[test]
    fn drops_everything_else() {
        // A thread of its own: its capabilities are its own.
        let thread = std::thread::spawn(|| {
            let keep: CapsHashSet = [Capability::CAP_DAC_READ_SEARCH].into_iter().collect();
            drop_of_this_thread(&keep).expect("drops");
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
                assert!(caps::read(None, set).expect("reads").is_subset(&keep), "{set:?}");
            }
        });
        thread.join().expect("passes");
    }
}
