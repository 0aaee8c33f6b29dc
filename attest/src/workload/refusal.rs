//! Why a local caller cannot be attested.

use std::io;

use nix::errno::Errno;
use thiserror::Error;

/// Most supplementary groups looked at. The kernel allows 65,536, each of which would cost a lookup.
pub const MAX_SUPPLEMENTARY_GROUPS: usize = 1024;

/// Why a local caller cannot be attested. Each is about this caller alone.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum WorkloadRefusal {
    /// The kernel reports PID 0: the peer is invisible from here, so nothing can be read about it.
    #[error(
        "caller (uid {uid}) is in another PID namespace that the agent cannot see into; run the agent in the host's"
    )]
    OtherPidNamespace { uid: u32 },
    /// The process that connected is gone, or another one has its PID now.
    #[error("process {pid} has exited")]
    Exited { pid: i32 },
    /// The process lives but /proc does not show it.
    #[error(
        "process {pid} is hidden from the agent by /proc's hidepid option (give the agent CAP_SYS_PTRACE or the gid= group)"
    )]
    Hidden { pid: i32 },
    /// The process has another user or group now than when it connected.
    #[error("process {pid} changed from uid {old_uid} gid {old_gid} to uid {uid} gid {gid} since it connected")]
    CredentialsChanged { pid: i32, old_uid: u32, old_gid: u32, uid: u32, gid: u32 },
    /// More supplementary groups than are looked at.
    #[error("process {pid} has more than {MAX_SUPPLEMENTARY_GROUPS} supplementary groups")]
    TooManyGroups { pid: i32 },
    /// A file of /proc could not be read, or says something else than the kernel documents.
    #[error("cannot read /proc/{pid}/{file}")]
    Unreadable {
        pid: i32,
        file: &'static str,
        #[source]
        source: io::Error,
    },
    /// The kernel did not say who connected.
    #[error("cannot ask the kernel who connected")]
    Credentials(#[source] Errno),
}
