//! The selectors of a unix process, in the names of SPIRE's `unix` attestor.

use std::time::{Duration, Instant};

use nix::unistd::getpid;
use procfs::process::Status;
use thiserror::Error;
use tracing::{debug, info};

use super::digests::Digests;
use super::executable::{Executable, Withheld};
use super::hash_demand::HashDemand;
use super::peer::Peer;
use super::process::Process;
use super::{MAX_SUPPLEMENTARY_GROUPS, WorkloadRefusal, names};
use crate::{Selector, SelectorSet};

/// How long hashing one executable may take.
const HASH_DEADLINE: Duration = Duration::from_secs(4);
/// Largest executable hashed unless the operator says otherwise, bytes: what a slow core (128 MB/s) hashes within
/// [`HASH_DEADLINE`].
pub const DEFAULT_SIZE_LIMIT: i64 = 512 << 20;

/// SPIRE's configuration keys of the `unix` workload attestor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnixAttestorConfig {
    /// Also find the selectors `path` and `sha256`. Needs CAP_SYS_PTRACE for other users' processes.
    pub discover_workload_path: bool,
    /// Largest executable hashed, bytes; 0: any, below 0: none is hashed. [`DEFAULT_SIZE_LIMIT`] where nothing is said.
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
    /// `unix:path` and `unix:sha256` are left out, and the reason logged, where they could be forged or cannot be had;
    /// `unix:sha256` also where `demand` shows that nothing depends on it.
    pub fn attest(&self, peer: &Peer, demand: &HashDemand) -> Result<SelectorSet, WorkloadRefusal> {
        let process = peer.process()?;
        let exited = WorkloadRefusal::Exited { pid: peer.pid() };
        let status = match process.status() {
            Err(_) if !peer.still_alive() => return Err(exited),
            status => status?,
        };
        check_credentials(peer, &status)?;
        let mut selectors: SelectorSet = users_and_groups(peer, &status).into_iter().collect();
        if let Some(executable) = self.executable(peer, &process) {
            selectors.extend(executable.path().map_err(|why| withheld(peer, "unix:path", &why)).ok());
            if demand.concerns(&selectors) {
                selectors.extend(self.sha256(peer, &executable));
            }
        }
        // Only now is it certain that all of the above was read from the process that connected.
        if peer.still_alive() { Ok(selectors) } else { Err(exited) }
    }

    fn executable(&self, peer: &Peer, process: &Process) -> Option<Executable> {
        if !self.config.discover_workload_path {
            return None;
        }
        Executable::open(peer, process).map_err(|why| withheld(peer, "unix:path, unix:sha256", &why)).ok()
    }

    fn sha256(&self, peer: &Peer, executable: &Executable) -> Option<Selector> {
        let (limit, deadline) = (self.config.workload_size_limit, Instant::now() + HASH_DEADLINE);
        let hashed = executable.sha256(peer.uid(), limit, &self.digests, deadline);
        hashed.map_err(|why| withheld(peer, "unix:sha256", &why)).ok().flatten()
    }
}

fn withheld(peer: &Peer, selector: &str, why: &Withheld) {
    let (pid, uid, reason) = (peer.pid(), peer.uid(), why as &dyn std::error::Error);
    match why {
        // Said when it failed, and may be asked for at every request until it is tried again.
        Withheld::FailedBefore => debug!(pid, uid, selector, reason, "withheld a selector"),
        _ => info!(pid, uid, selector, reason, "withheld a selector"),
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
