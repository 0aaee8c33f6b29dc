//! What the agent may do beyond an ordinary user, and giving up the rest.
//!
//! Source: capabilities(7).

use caps::{CapSet, CapsHashSet};
use thiserror::Error;

pub use caps::Capability;

/// What `discover_workload_path` needs to look at other users' processes.
pub const NEEDED_TO_DISCOVER_PATHS: Capability = Capability::CAP_SYS_PTRACE;

/// Why capabilities cannot be read or dropped.
#[derive(Debug, Error)]
pub enum CapabilityError {
    /// Capabilities belong to threads, so they must be dropped before there is a second one.
    #[error("capabilities must be dropped before other threads start")]
    OtherThreads,
    /// The kernel refused.
    #[error("cannot read or change the process's capabilities")]
    System(#[source] caps::errors::CapsError),
}

/// What is missing for `discover_workload_path`, as a warning for the operator that names the next step.
pub fn missing_to_discover_paths() -> Result<Option<&'static str>, CapabilityError> {
    let held = caps::has_cap(None, CapSet::Effective, NEEDED_TO_DISCOVER_PATHS).map_err(CapabilityError::System)?;
    Ok((!held).then_some(
        "discover_workload_path is on but the agent lacks CAP_SYS_PTRACE: processes of other users will have no unix:path and \
         unix:sha256 selectors. Add AmbientCapabilities=CAP_SYS_PTRACE to the agent's unit, or run it as root",
    ))
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
        caps::set(None, set, &kept(set)?)?;
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
    fn drops_everything_else_and_reports_what_is_missing() {
        // A thread of its own: its capabilities are its own.
        let thread = std::thread::spawn(|| {
            let keep: CapsHashSet = [Capability::CAP_DAC_READ_SEARCH].into_iter().collect();
            drop_of_this_thread(&keep).expect("drops");
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
                assert!(caps::read(None, set).expect("reads").is_subset(&keep), "{set:?}");
            }
            assert!(missing_to_discover_paths().expect("reads").expect("missing").contains("AmbientCapabilities"));
        });
        thread.join().expect("passes");
    }
}
