//! The selectors of a unix process, in the names of SPIRE's `unix` attestor.

use std::time::{Duration, Instant};

use nix::unistd::getpid;
use procfs::process::Status;
use thiserror::Error;
use tracing::info;

use super::digests::Digests;
use super::executable::{Executable, Withheld};
use super::peer::Peer;
use super::process::Process;
use super::{MAX_SUPPLEMENTARY_GROUPS, WorkloadRefusal, names};
use crate::{Selector, SelectorSet};

/// How long hashing one executable may take.
const HASH_DEADLINE: Duration = Duration::from_secs(4);

/// SPIRE's configuration keys of the `unix` workload attestor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnixAttestorConfig {
    /// Also find the selectors `path` and `sha256`. Needs CAP_SYS_PTRACE for other users' processes.
    pub discover_workload_path: bool,
    /// Largest executable hashed, bytes; 0: any, below 0: none is hashed.
    pub workload_size_limit: i64,
}

/// Why no local process can be attested at all.
#[derive(Debug, Error)]
pub enum AttestorError {
    /// /proc shows other processes than the kernel tells us about.
    #[error("/proc belongs to another PID namespace than the agent: mount the agent's own")]
    ForeignProc,
}

/// Attests unix processes; remembers hashes.
#[derive(Debug)]
pub struct UnixAttestor {
    config: UnixAttestorConfig,
    digests: Digests,
}

impl UnixAttestor {
    /// Checks that /proc shows the processes that sockets will name.
    pub fn new(config: UnixAttestorConfig) -> Result<Self, AttestorError> {
        let own = std::fs::read_link("/proc/self").map_err(|_| AttestorError::ForeignProc)?;
        match own.to_str() == Some(&getpid().to_string()) {
            true => Ok(Self { config, digests: Digests::default() }),
            false => Err(AttestorError::ForeignProc),
        }
    }

    /// What is true of `peer` now. Blocks on files and user databases.
    ///
    /// `unix:path` and `unix:sha256` are left out, and the reason logged, where they could be forged or cannot be had.
    pub fn attest(&self, peer: &Peer) -> Result<SelectorSet, WorkloadRefusal> {
        let process = peer.process()?;
        let exited = WorkloadRefusal::Exited { pid: peer.pid() };
        let status = match process.status() {
            Err(_) if !peer.still_alive() => return Err(exited),
            status => status?,
        };
        check_credentials(peer, &status)?;
        let mut selectors = self.executable(peer, &process);
        // Only now is it certain that all of the above was read from the process that connected.
        if !peer.still_alive() {
            return Err(exited);
        }
        selectors.extend(users_and_groups(peer, &status));
        Ok(selectors.into_iter().collect())
    }

    fn executable(&self, peer: &Peer, process: &Process) -> Vec<Selector> {
        if !self.config.discover_workload_path {
            return Vec::new();
        }
        let withheld = |what: &str, why: Withheld| {
            info!(
                pid = peer.pid(),
                uid = peer.uid(),
                selector = what,
                reason = &why as &dyn std::error::Error,
                "withheld a selector"
            );
        };
        let executable = match Executable::open(peer, process) {
            Ok(executable) => executable,
            Err(why) => {
                withheld("unix:path, unix:sha256", why);
                return Vec::new();
            }
        };
        let path = executable.path().map_err(|why| withheld("unix:path", why)).ok();
        let deadline = Instant::now() + HASH_DEADLINE;
        let sha256 = executable.sha256(self.config.workload_size_limit, &self.digests, deadline);
        let sha256 = sha256.map_err(|why| withheld("unix:sha256", why)).ok().flatten();
        path.into_iter().chain(sha256).collect()
    }
}

fn check_credentials(peer: &Peer, status: &Status) -> Result<(), WorkloadRefusal> {
    let (pid, old_uid, old_gid) = (peer.pid(), peer.uid(), peer.gid());
    let (uid, gid) = (status.euid, status.egid);
    if (uid, gid) != (old_uid, old_gid) {
        return Err(WorkloadRefusal::CredentialsChanged { pid, old_uid, old_gid, uid, gid });
    }
    if status.groups.len() > MAX_SUPPLEMENTARY_GROUPS {
        return Err(WorkloadRefusal::TooManyGroups { pid });
    }
    Ok(())
}

fn users_and_groups(peer: &Peer, status: &Status) -> Vec<Selector> {
    let mut found = vec![names::number("uid", peer.uid()), names::number("gid", peer.gid())];
    found.extend(names::user(peer.uid()));
    found.extend(names::group("group", peer.gid()));
    for gid in &status.groups {
        found.push(names::number("supplementary_gid", *gid));
        found.extend(names::group("supplementary_group", *gid));
    }
    found
}
