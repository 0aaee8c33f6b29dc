//! Where the admin socket is, and who may ask there for others.

use std::path::{Component, Path, PathBuf};

use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_shell::settings::{Section, places};

use super::{DEFAULT_SOCKET_PATH, Delegates};

/// Where commands look for it unless they are told. Source: SPIRE.
pub(crate) const DEFAULT_ADMIN_SOCKET_PATH: &str = "/tmp/spire-agent/private/admin.sock";

/// Reads `admin_socket_path`.
pub(super) fn read_path(agent: &Section<'_>) -> Option<PathBuf> {
    let path = agent.socket_path("admin_socket_path")?;
    if is_among_workloads(agent, &path) {
        agent.mistake(
            "admin_socket_path",
            "the admin socket cannot be in the same directory or a subdirectory as that containing the Workload API socket: \
             give it a directory of its own",
        );
    }
    agent.look("admin_socket_path", || places::usable_socket(&path));
    Some(path)
}

/// Whether `path` is in the directory of the workloads' socket or below it. Source: SPIRE. Containers are given that directory, with all
/// that is in it.
pub(super) fn is_among_workloads(agent: &Section<'_>, path: &Path) -> bool {
    let workloads = agent.string("socket_path").and_then(|path| std::path::absolute(path).ok());
    let workloads = workloads.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET_PATH));
    tidy(&workloads).parent().is_some_and(|directory| tidy(path).starts_with(directory))
}

/// Reads `authorized_delegates`: SPIFFE IDs of workloads in `trust_domain`.
pub(super) fn read_delegates(agent: &Section<'_>, trust_domain: Option<&TrustDomain>) -> Delegates {
    let delegate = |text: &str| {
        let id = SpiffeId::parse(text)?;
        trust_domain.map_or(Ok(id.clone()), |domain| id.clone().as_member_of(domain))
    };
    let delegates = agent.parsed_list("authorized_delegates", delegate).unwrap_or_default();
    if !delegates.is_empty() && agent.string("admin_socket_path").is_none() {
        agent.warn(
            "authorized_delegates",
            "delegates ask on the admin socket, and there is none: give admin_socket_path",
        );
    }
    delegates.into_iter().collect()
}

/// Without `.` and `..`, as far as they can be told from the text.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(tidy.pop()),
            Component::CurDir => {}
            part => tidy.push(part),
        }
    }
    tidy
}
