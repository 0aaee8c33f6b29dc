//! What the process gives up before it serves anybody: being read or dumped, and every capability that an agent has no use for.
//!
//! Source: capabilities(7). An agent started without privilege has nothing to give up and loses nothing here.

use ironroot_attest::workload::capabilities::{
    CapabilitiesUnknown, NEEDED_TO_DISCOVER_PATHS, missing_to_discover_paths,
};
use ironroot_shell::process::{self, Capability, CapabilityError, ProcessError};
use thiserror::Error;

use crate::config::AgentConfig;

/// Why an agent cannot be confined.
#[derive(Debug, Error)]
pub enum ConfinementError {
    /// The kernel does not say which capabilities the process has.
    #[error(transparent)]
    Unknown(#[from] CapabilitiesUnknown),
    /// What it has cannot be given up.
    #[error(transparent)]
    Kept(#[from] CapabilityError),
    /// It cannot be closed to others.
    #[error(transparent)]
    Open(#[from] ProcessError),
}

/// Closes the process and drops capabilities, for good; what the operator should know if configuration asks for one that is not
/// there. Must run while the process has one thread, so before the log, which may have one.
pub fn confine(config: &AgentConfig) -> Result<Option<&'static str>, ConfinementError> {
    let discovers = config.workload_attestor.discover_workload_path;
    let warning = if discovers { missing_to_discover_paths()? } else { None };
    process::drop_all_except(&kept(config))?;
    process::close()?;
    Ok(warning)
}

/// The chip's device node and the configured directories may belong to another user, also when they are opened again; paths
/// of other users' processes and a port below 1024, for health or for attestation, are asked for by configuration.
fn kept(config: &AgentConfig) -> Vec<Capability> {
    let mut kept = vec![Capability::CAP_DAC_OVERRIDE];
    if config.workload_attestor.discover_workload_path {
        kept.push(NEEDED_TO_DISCOVER_PATHS);
    }
    if config.health_checks.is_some() || config.node_attestor.listens_where_root_does() {
        kept.push(Capability::CAP_NET_BIND_SERVICE);
    }
    kept
}
