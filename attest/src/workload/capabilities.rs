//! What the agent may need beyond an ordinary user.
//!
//! Source: capabilities(7).

use caps::{CapSet, errors::CapsError};
use thiserror::Error;

pub use caps::Capability;

/// What `discover_workload_path` needs to look at other users' processes.
pub const NEEDED_TO_DISCOVER_PATHS: Capability = Capability::CAP_SYS_PTRACE;

/// The kernel does not tell this process's capabilities.
#[derive(Debug, Error)]
#[error("cannot read the process's capabilities")]
pub struct CapabilitiesUnknown(#[source] CapsError);

/// What is missing for `discover_workload_path`, as a warning for the operator that names the next step.
pub fn missing_to_discover_paths() -> Result<Option<&'static str>, CapabilitiesUnknown> {
    let held = caps::has_cap(None, CapSet::Effective, NEEDED_TO_DISCOVER_PATHS).map_err(CapabilitiesUnknown)?;
    Ok((!held).then_some(
        "discover_workload_path is on but the agent lacks CAP_SYS_PTRACE: processes of other users will have no selectors \
         unix:path, unix:sha256 and unix:fs_verity. Add AmbientCapabilities=CAP_SYS_PTRACE to the agent's unit, or run it as root",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_what_is_missing() {
        // A thread of its own: its capabilities are its own.
        let thread = std::thread::spawn(|| {
            caps::clear(None, CapSet::Effective).expect("drops");
            assert!(missing_to_discover_paths().expect("reads").expect("missing").contains("AmbientCapabilities"));
        });
        thread.join().expect("passes");
    }
}
