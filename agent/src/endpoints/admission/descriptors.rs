//! How many connections this process has descriptors for.

use std::error::Error;

use ironroot_shell::process;
use nix::sys::resource::{Resource, getrlimit};
use tracing::warn;

use super::Limits;
use super::books::MAX_LEAVING;

/// Descriptors the agent keeps for itself: files, server channel, TPM.
const RESERVED: usize = 64;
/// Descriptors of one connection: the socket, its peer's pidfd, its peer's executable.
const PER_CONNECTION: usize = 3;

/// Lets this process open what `limits` allows, as far as its hard limit goes.
pub fn raise_descriptor_limit(limits: &Limits) {
    let wanted = (RESERVED + PER_CONNECTION * (limits.max_connections + MAX_LEAVING)) as u64;
    if let Err(error) = process::raise_descriptor_limit(wanted) {
        let error = &error as &dyn Error;
        warn!(error, "cannot raise the limit of open files; fewer connections are possible");
    }
}

/// Connections that fit beside what the agent itself needs and what is about to end.
pub(super) fn room_for_connections() -> usize {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let all = usize::try_from(soft).unwrap_or(usize::MAX);
    (all.saturating_sub(RESERVED) / PER_CONNECTION).saturating_sub(MAX_LEAVING)
}
