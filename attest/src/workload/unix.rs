//! The selectors of a unix process, in the names of SPIRE's attestors `unix`, `slurm` and `systemd`, and with those of its container.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::getpid;
use thiserror::Error;

use super::cgroup;
use super::containers::ContainerConfig;
use super::demand::Demand;
use super::digests::{DigestDemand, Digests};
use super::executable::{Executable, OnDisk, Ours};
use super::link::{ExecutableLink, ExecutableSelectors};
use super::names;
use super::namespaces::Namespaces;
use super::outage::Outages;
use super::owner::Owner;
use super::peer::{Credentials, Peer};
use super::process::Process;
use super::refusal::{MAX_SUPPLEMENTARY_GROUPS, WorkloadRefusal};
use super::slurm;
use super::systemd::{self, SystemBus};
use super::withheld::Withheld;
use super::witnessed::{SecondWrite, Silence};
use crate::{Selector, SelectorSet};

/// What is told of executables.
const OF_EXECUTABLE: &str = "unix:path, unix:sha256, unix:fs_verity";
/// How long hashing one executable may take.
const HASH_DEADLINE: Duration = Duration::from_secs(4);
/// Largest executable hashed unless the operator says otherwise, bytes: what a slow core (128 MB/s) hashes within
/// `HASH_DEADLINE`.
pub const DEFAULT_SIZE_LIMIT: i64 = 512 << 20;

/// What is looked at. The first two are SPIRE's keys of the `unix` workload attestor, the others are ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnixAttestorConfig {
    /// Also find the selectors `path`, `sha256` and `fs_verity`. Needs CAP_SYS_PTRACE for other users' processes.
    pub discover_workload_path: bool,
    /// Largest executable hashed, bytes; 0: any, below 0: none is hashed. [`DEFAULT_SIZE_LIMIT`] where nothing is said.
    pub workload_size_limit: i64,
    /// Whether they are told where users can forge them.
    pub executable_selectors: ExecutableSelectors,
    /// Whether they are told of processes with another view of the file system than the agent's.
    pub executable_in_other_mounts: bool,
    /// Also find the selector `cgroup`.
    pub discover_cgroup: bool,
}

/// Which attestors there are, in SPIRE's names.
#[derive(Clone, Debug, Default)]
pub struct AttestorConfig {
    /// `unix`: user, groups, and the executable if it says so.
    pub unix: Option<UnixAttestorConfig>,
    /// `slurm`: the job.
    pub slurm: bool,
    /// `systemd`: the unit, and where systemd is asked.
    pub systemd: Option<SystemBus>,
    /// `docker` and `k8s`: the container.
    pub containers: ContainerConfig,
}

impl From<UnixAttestorConfig> for AttestorConfig {
    /// The `unix` attestor alone.
    fn from(unix: UnixAttestorConfig) -> Self {
        Self { unix: Some(unix), ..Self::default() }
    }
}

/// Why no local process can be attested at all.
#[derive(Debug, Error)]
pub enum AttestorError {
    /// /proc shows other processes than the kernel tells us about.
    #[error("/proc belongs to another PID namespace than the agent: mount the agent's own")]
    ForeignProc,
    /// Whether callers are in the same namespaces could not be told.
    #[error("cannot look at the agent's own namespaces in /proc/self/ns")]
    Namespaces(#[source] Errno),
}

/// What is known about a process.
#[derive(Debug)]
pub struct Attested {
    /// All that is proven of it; an entry applies if it names nothing else.
    pub selectors: SelectorSet,
    /// What an entry asked for and is left out, for the log.
    pub withheld: Vec<WithheldSelector>,
    /// The path that was proven earlier on this connection and now leads to another file, or to none.
    pub replaced_on_disk: Option<Selector>,
    /// Whether something of it was said earlier on this connection by somebody who cannot be asked now.
    pub is_kept: bool,
}

/// A selector that was left out.
#[derive(Debug)]
pub struct WithheldSelector {
    /// Its name or names.
    pub selector: &'static str,
    /// What could not be proven, or may not be looked at.
    pub why: Withheld,
}

/// Attests unix processes; remembers hashes.
#[derive(Debug)]
pub struct UnixAttestor {
    config: AttestorConfig,
    link: ExecutableLink,
    ours: Namespaces,
    digests: Digests,
    outages: Outages,
}

impl UnixAttestor {
    /// Checks that /proc shows the processes that sockets will name, and asks what this kernel lets users forge.
    pub fn new(config: impl Into<AttestorConfig>) -> Result<Self, AttestorError> {
        let own = std::fs::read_link("/proc/self").map_err(|_| AttestorError::ForeignProc)?;
        if own.to_str() != Some(&getpid().to_string()) {
            return Err(AttestorError::ForeignProc);
        }
        let ours = Process::open(getpid().as_raw()).and_then(|this| Namespaces::of(&this));
        let ours = ours.map_err(AttestorError::Namespaces)?;
        let (link, digests, outages) = (ExecutableLink::of_this_kernel(), Digests::default(), Outages::default());
        Ok(Self { config: config.into(), link, ours, digests, outages })
    }

    /// Whether `unix:path`, `unix:sha256` and `unix:fs_verity` are told of anybody.
    pub fn looks_at_executables(&self) -> bool {
        self.executables().is_some()
    }

    /// How executables are looked at, if they are.
    fn executables(&self) -> Option<&UnixAttestorConfig> {
        self.discovers().filter(|config| match config.executable_selectors {
            ExecutableSelectors::Always => true,
            ExecutableSelectors::WhereUnforgeable => self.link != ExecutableLink::Forgeable,
            ExecutableSelectors::Never => false,
        })
    }

    fn discovers(&self) -> Option<&UnixAttestorConfig> {
        self.config.unix.as_ref().filter(|config| config.discover_workload_path)
    }

    fn discovers_cgroups(&self) -> bool {
        self.config.unix.is_some_and(|config| config.discover_cgroup)
    }

    /// What the operator should know about executables on this machine, to be said once.
    pub fn warning(&self) -> Option<&'static str> {
        let forgeable = self.link == ExecutableLink::Forgeable;
        match self.discovers()?.executable_selectors {
            ExecutableSelectors::Always if forgeable => Some(
                "any local user can make a process look like any program that it may run (this kernel has PR_SET_MM_MAP and \
                 lets users make user namespaces): unix:path, unix:sha256 and unix:fs_verity tell honest programs of one user \
                 apart, they do not protect. Set user.max_user_namespaces = 0, or executable_selectors = \"where_unforgeable\"",
            ),
            ExecutableSelectors::WhereUnforgeable if forgeable => Some(
                "unix:path, unix:sha256 and unix:fs_verity are told of no process, because users can forge them on this machine (its kernel \
                 has PR_SET_MM_MAP and lets users make user namespaces): set user.max_user_namespaces = 0 and restart the agent",
            ),
            _ => None,
        }
    }

    /// Who is on the other end of `stream`, which has just been accepted. Does not block.
    pub fn peer(&self, stream: &impl AsFd, credentials: Credentials) -> Result<Peer, WorkloadRefusal> {
        Peer::of(stream, credentials, self.looks_at_executables())
    }

    /// Whose process `peer` is now: everything but its executable. Blocks on files, user databases, and systemd and who keeps its
    /// container as far as `demand` shows that something depends on the answer.
    pub fn attest_user(&self, peer: &Peer, demand: &Demand) -> Result<Attested, WorkloadRefusal> {
        self.user(peer, demand).map(|(_, attested)| attested)
    }

    /// Whose process has the number `pid` now: everything but its executable, of which nothing is proven without a connection of
    /// its own. Blocks as [`attest_user`](Self::attest_user).
    pub fn attest_numbered(&self, pid: i32, demand: &Demand) -> Result<(Peer, Attested), WorkloadRefusal> {
        let peer = Peer::numbered(pid)?;
        let attested = self.attest_named(&peer, demand)?;
        Ok((peer, attested))
    }

    /// The same of a process that was named before.
    pub fn attest_named(&self, process: &Peer, demand: &Demand) -> Result<Attested, WorkloadRefusal> {
        let mut attested = self.attest_user(process, demand)?;
        if self.looks_at_executables() && demand.concerns(&attested.selectors) {
            attested.withhold(OF_EXECUTABLE, Withheld::Numbered);
        }
        Ok(attested)
    }

    /// Whether numbers of processes mean to `peer` what they mean here: in another PID namespace they name others. Blocks on procfs.
    pub fn shares_numbers_with(&self, peer: &Peer) -> Result<bool, WorkloadRefusal> {
        let shares = peer.process()?.has_one_number()?;
        if peer.still_alive() { Ok(shares) } else { Err(WorkloadRefusal::Exited { pid: peer.pid() }) }
    }

    /// What is true of `peer` now. Blocks on files, user databases and systemd.
    ///
    /// `unix:path`, `unix:sha256` and `unix:fs_verity` are looked for only as far as `demand` shows that something depends on them, and only
    /// after the process has spoken HTTP/2 since it was accepted (`heard`). They are left out where they could be forged or cannot be had.
    pub fn attest(
        &self,
        peer: &Peer,
        demand: &Demand,
        heard: Result<SecondWrite, Silence>,
    ) -> Result<Attested, WorkloadRefusal> {
        let (process, mut attested) = self.user(peer, demand)?;
        if let Some(config) = self.executables().filter(|_| demand.concerns(&attested.selectors)) {
            let told = self.executable(config, peer, &process, demand, heard, &mut attested);
            told.unwrap_or_else(|why| attested.withhold(OF_EXECUTABLE, why));
        }
        // Only now is it certain that all of the above was read from the process that connected.
        if peer.still_alive() { Ok(attested) } else { Err(WorkloadRefusal::Exited { pid: peer.pid() }) }
    }

    /// Whether [`is_still`](Self::is_still) can be true of anybody.
    pub fn knows_again(&self) -> bool {
        let knows_places = self.config.slurm
            || self.config.systemd.is_some()
            || self.config.containers.is_some()
            || self.discovers_cgroups();
        self.config.unix.is_some() && !knows_places
    }

    /// Whether `peer` certainly still is whom `known` says, by one read of procfs: its user and groups, whose names are not
    /// looked up again. Not where more may have changed, which is its job, its unit and its container. Does not block: that file is made from memory alone.
    pub fn is_still(&self, peer: &Peer, known: &SelectorSet) -> Result<bool, WorkloadRefusal> {
        if !self.knows_again() {
            return Ok(false);
        }
        let owner = owner(peer, &peer.process()?)?;
        check_credentials(peer, &owner)?;
        let same = has_groups(known, &owner.groups);
        if peer.still_alive() { Ok(same) } else { Err(WorkloadRefusal::Exited { pid: peer.pid() }) }
    }

    fn user(&self, peer: &Peer, demand: &Demand) -> Result<(Process, Attested), WorkloadRefusal> {
        let process = peer.process()?;
        let owner = owner(peer, &process)?;
        check_credentials(peer, &owner)?;
        let users = self.config.unix.map(|_| users_and_groups(peer, &owner));
        let selectors = users.into_iter().flatten().collect();
        let mut attested = Attested { selectors, withheld: Vec::new(), replaced_on_disk: None, is_kept: false };
        if self.discovers_cgroups() {
            match cgroup::told(&process) {
                Ok(selector) => attested.selectors.extend([selector]),
                Err(why) if demand.concerns_cgroup(&attested.selectors) => attested.withhold("unix:cgroup", why.into()),
                Err(_) => {}
            }
        }
        if self.config.slurm {
            match slurm::told(&process) {
                Ok(job) => attested.selectors.extend(job),
                Err(why) if demand.concerns_job(&attested.selectors) => {
                    attested.withhold("slurm:job_id, slurm:sluid, slurm:step", why.into());
                }
                Err(_) => {}
            }
        }
        if let Some(bus) = &self.config.systemd {
            let wanted = |id: &Selector| demand.of_unit(&attested.with([id]));
            let told = systemd::told(bus, peer, &process, wanted, &self.outages.systemd);
            attested.selectors.extend(told.selectors);
            attested.is_kept |= told.is_kept;
            told.withheld
                .into_iter()
                .for_each(|why| attested.withhold("systemd:id, systemd:fragment_path", why.into()));
        }
        if self.config.containers.is_some() {
            let wanted = demand.of_containers(&attested.selectors);
            let told = self.config.containers.told(peer, &process, wanted, &self.outages);
            attested.selectors.extend(told.selectors);
            attested.is_kept |= told.is_kept;
            told.withheld.into_iter().for_each(|(selectors, why)| attested.withhold(selectors, why.into()));
        }
        //= FLT-A27 agent faults: "one that is ending is gone, and not moved"
        let left = attested.withheld.iter().any(|withheld| withheld.why.is_of_a_changed_place()) && process.is_ending();
        if !left && peer.still_alive() {
            Ok((process, attested))
        } else {
            Err(WorkloadRefusal::Exited { pid: peer.pid() })
        }
    }

    fn executable(
        &self,
        config: &UnixAttestorConfig,
        peer: &Peer,
        process: &Process,
        demand: &Demand,
        heard: Result<SecondWrite, Silence>,
        attested: &mut Attested,
    ) -> Result<(), Withheld> {
        let ours = Ours { namespaces: self.ours, any_mounts: config.executable_in_other_mounts };
        let executable = Executable::open(peer.executable(), process, ours, heard?)?;
        let mut found = Vec::new();
        match executable.path() {
            Ok((path, on_disk)) => {
                attested.replaced_on_disk = (on_disk == OnDisk::Replaced).then(|| path.clone());
                found.push(path);
            }
            Err(why) => attested.withhold("unix:path", why),
        }
        let wanted = demand.of_digests(&attested.with(&found));
        found.extend(self.digests(config, peer.uid(), &executable, wanted, attested));
        executable.still_runs(process)?;
        attested.selectors.extend(found);
        Ok(())
    }

    /// The executable's digests of those that are `wanted`; what is left out is noted with the reason. `workload_size_limit` as in SPIRE:
    /// below 0 there are none, and nothing to note.
    fn digests(
        &self,
        config: &UnixAttestorConfig,
        uid: u32,
        executable: &Executable<'_>,
        mut wanted: DigestDemand,
        attested: &mut Attested,
    ) -> Vec<Selector> {
        if config.workload_size_limit < 0 {
            return Vec::new();
        }
        if wanted.fs_verity
            && let Err(why) = executable.is_guarded()
        {
            attested.withhold("unix:fs_verity", why);
            wanted.fs_verity = false;
        }
        if wanted.is_nothing() {
            return Vec::new();
        }
        let deadline = Instant::now() + HASH_DEADLINE;
        executable.digests(uid, wanted, config.workload_size_limit, &self.digests, deadline).unwrap_or_else(|why| {
            attested.withhold(wanted.selectors(), why);
            Vec::new()
        })
    }
}

impl Attested {
    /// Whether something that an entry asks for is missing because nobody could be asked about it: the process may well have it.
    pub fn is_unasked(&self) -> bool {
        self.withheld.iter().any(|withheld| withheld.why.is_unasked())
    }

    fn with<'a>(&'a self, more: impl IntoIterator<Item = &'a Selector>) -> SelectorSet {
        self.selectors.iter().chain(more).cloned().collect()
    }

    fn withhold(&mut self, selector: &'static str, why: Withheld) {
        self.withheld.push(WithheldSelector { selector, why });
    }
}

fn owner(peer: &Peer, process: &Process) -> Result<Owner, WorkloadRefusal> {
    match process.owner() {
        Err(_) if !peer.still_alive() => Err(WorkloadRefusal::Exited { pid: peer.pid() }),
        owner => owner,
    }
}

/// Whether the supplementary groups in `known` are exactly `groups`.
fn has_groups(known: &SelectorSet, groups: &[u32]) -> bool {
    let now: SelectorSet = groups.iter().map(|gid| names::number("supplementary_gid", *gid)).collect();
    let is_group =
        |selector: &&Selector| selector.kind() == "unix" && selector.value().starts_with("supplementary_gid:");
    now.is_subset_of(known) && known.iter().filter(is_group).count() == now.len()
}

fn check_credentials(peer: &Peer, owner: &Owner) -> Result<(), WorkloadRefusal> {
    let (pid, old_uid, old_gid) = (peer.pid(), peer.uid(), peer.gid());
    let (uid, gid) = (owner.euid, owner.egid);
    if (uid, gid) != (old_uid, old_gid) {
        return Err(WorkloadRefusal::CredentialsChanged { pid, old_uid, old_gid, uid, gid });
    }
    if owner.groups.len() > MAX_SUPPLEMENTARY_GROUPS {
        //= FLT-A17 agent faults: "that caller is refused or told less"
        return Err(WorkloadRefusal::TooManyGroups { pid });
    }
    Ok(())
}

fn users_and_groups(peer: &Peer, owner: &Owner) -> Vec<Selector> {
    let mut found = vec![names::number("uid", peer.uid()), names::number("gid", peer.gid())];
    found.extend(names::user(peer.uid()));
    found.extend(names::group("group", peer.gid()));
    for gid in &owner.groups {
        found.push(names::number("supplementary_gid", *gid));
        found.extend(names::group("supplementary_group", *gid));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_change_its_job_unit_or_control_group_is_never_known_again() {
        let bus = || Some(SystemBus::default());
        let unix = || Some(UnixAttestorConfig::default());
        for (unix, slurm, systemd, knows_again) in [
            (unix(), false, None, true),
            (unix(), false, bus(), false),
            (unix(), true, None, false),
            (None, false, bus(), false),
            (None, false, None, false),
        ] {
            let config = AttestorConfig { unix, slurm, systemd, ..AttestorConfig::default() };
            assert_eq!(UnixAttestor::new(config).expect("our own /proc").knows_again(), knows_again);
        }
        let cgroups = UnixAttestorConfig { discover_cgroup: true, ..UnixAttestorConfig::default() };
        assert!(!UnixAttestor::new(cgroups).expect("our own /proc").knows_again());
    }

    #[test]
    fn a_group_more_or_less_is_noticed_and_a_repeated_one_is_none() {
        let known: SelectorSet =
            ["unix:uid:1", "unix:supplementary_gid:4", "unix:supplementary_gid:7", "other:supplementary_gid:9"]
                .map(|text| text.parse().expect("legal"))
                .into_iter()
                .collect();
        for (groups, same) in
            [(&[7, 4][..], true), (&[4, 7, 7], true), (&[4], false), (&[4, 7, 9], false), (&[], false)]
        {
            assert_eq!(has_groups(&known, groups), same, "{groups:?}");
        }
        assert!(has_groups(&SelectorSet::default(), &[]));
    }
}
