//! Of whom an executable is looked at, or hashed, or systemd asked for the unit, at all: it is work, and waiting, that an
//! entry must ask for.

use std::sync::Arc;

use super::containers::ContainerDemand;
use super::digests::DigestDemand;
use crate::{Selector, SelectorSet};

/// Which entries want to know more than whose a process is: of each such entry, the other selectors that a workload must
/// have. Cloning shares.
///
/// The default wants nothing of anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Of entries with `unix:path`, `unix:sha256` or `unix:fs_verity`: what else they have.
    looked_at: Arc<[SelectorSet]>,
    /// Of entries with `unix:sha256`: what else they have, a path included, an fs-verity digest not.
    sha256: Arc<[SelectorSet]>,
    /// Of entries with `unix:fs_verity`: likewise.
    fs_verity: Arc<[SelectorSet]>,
    /// Of entries with `unix:cgroup`: what else they have of whose a process is.
    cgroups: Arc<[SelectorSet]>,
    /// Of entries with a job of Slurm's: likewise.
    jobs: Arc<[SelectorSet]>,
    /// Of entries with a unit: what else they have, its name included; nothing about executables, which are looked at later.
    units: Arc<[SelectorSet]>,
    /// Of entries with the file that the unit was read from: what else they have, the unit's name included.
    unit_files: Arc<[SelectorSet]>,
    /// Of entries with selectors of docker's: what else they have, but for executables.
    docker: Arc<[SelectorSet]>,
    /// Likewise of Kubernetes'.
    pods: Arc<[SelectorSet]>,
}

/// What entries want to know of a process's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnitDemand {
    Nothing,
    Id,
    /// And the file that it was read from.
    File,
}

impl Demand {
    /// What must be looked at, if entries with these sets of selectors are all that there are.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a SelectorSet> + Clone) -> Self {
        let known_last = |selector: &Selector| is_of_container(selector) || selector.is_of_executable();
        let known_later = |selector: &Selector| is_unit_file(selector) || known_last(selector);
        let of_kind = |kind: &'static str| move |selector: &Selector| selector.kind() == kind;
        Self {
            looked_at: others(entries.clone(), Selector::is_of_executable, Selector::is_of_executable),
            sha256: others(entries.clone(), is_sha256, is_digest),
            fs_verity: others(entries.clone(), is_fs_verity, is_digest),
            cgroups: others(entries.clone(), is_cgroup, |s| is_cgroup(s) || is_of_job_or_unit(s) || known_last(s)),
            jobs: others(entries.clone(), of_kind("slurm"), |s| is_of_job_or_unit(s) || known_last(s)),
            units: others(entries.clone(), of_kind("systemd"), known_later),
            unit_files: others(entries.clone(), is_unit_file, known_later),
            docker: others(entries.clone(), of_kind("docker"), known_last),
            pods: others(entries, of_kind("k8s"), known_last),
        }
    }

    /// Whether the executable could decide about a process with these other selectors.
    pub fn concerns(&self, user: &SelectorSet) -> bool {
        self.looked_at.iter().any(|others| others.is_subset_of(user))
    }

    /// Which digests of its executable could decide about a process of which `found` is known so far.
    pub(super) fn of_digests(&self, found: &SelectorSet) -> DigestDemand {
        let some_of = |entries: &[SelectorSet]| entries.iter().any(|others| others.is_subset_of(found));
        DigestDemand { sha256: some_of(&self.sha256), fs_verity: some_of(&self.fs_verity) }
    }

    /// Whether its control group could decide about a process with these other selectors of its user.
    pub(super) fn concerns_cgroup(&self, user: &SelectorSet) -> bool {
        self.cgroups.iter().any(|others| others.is_subset_of(user))
    }

    /// Whether its job could decide about a process with these other selectors, `unix:cgroup` among them.
    pub(super) fn concerns_job(&self, found: &SelectorSet) -> bool {
        self.jobs.iter().any(|others| others.is_subset_of(found))
    }

    /// Whether its unit could decide about a process with these selectors, `systemd:id` by its control group among them.
    pub fn concerns_unit(&self, found: &SelectorSet) -> bool {
        self.of_unit(found) != UnitDemand::Nothing
    }

    /// Whether its container could decide about a process with these selectors, its unit's among them.
    pub fn concerns_container(&self, found: &SelectorSet) -> bool {
        self.of_containers(found) != ContainerDemand::default()
    }

    pub(super) fn of_containers(&self, found: &SelectorSet) -> ContainerDemand {
        let some_of = |entries: &[SelectorSet]| entries.iter().any(|others| others.is_subset_of(found));
        ContainerDemand { docker: some_of(&self.docker), pods: some_of(&self.pods) }
    }

    pub(super) fn of_unit(&self, found: &SelectorSet) -> UnitDemand {
        let some_of = |entries: &[SelectorSet]| entries.iter().any(|others| others.is_subset_of(found));
        match () {
            () if some_of(&self.unit_files) => UnitDemand::File,
            () if some_of(&self.units) => UnitDemand::Id,
            () => UnitDemand::Nothing,
        }
    }
}

/// Of the entries that have a selector which `asks`: those that must be known before. Where the key is to be is nothing to know of a
/// process.
fn others<'a>(
    entries: impl IntoIterator<Item = &'a SelectorSet>,
    asks: impl Fn(&Selector) -> bool,
    is_known_later: impl Fn(&Selector) -> bool,
) -> Arc<[SelectorSet]> {
    let asking = entries.into_iter().filter(|selectors| selectors.iter().any(&asks));
    let is_known_before = |selector: &&Selector| !is_known_later(selector) && !selector.is_of_hardware_key();
    asking.map(|selectors| selectors.iter().filter(is_known_before).cloned().collect()).collect()
}

fn is_of_container(selector: &Selector) -> bool {
    matches!(selector.kind(), "docker" | "k8s")
}

fn is_of_job_or_unit(selector: &Selector) -> bool {
    matches!(selector.kind(), "slurm" | "systemd")
}

fn is_unit_file(selector: &Selector) -> bool {
    selector.kind() == "systemd" && selector.value().starts_with("fragment_path:")
}

fn is_cgroup(selector: &Selector) -> bool {
    selector.kind() == "unix" && selector.value().starts_with("cgroup:")
}

fn is_digest(selector: &Selector) -> bool {
    is_sha256(selector) || is_fs_verity(selector)
}

fn is_sha256(selector: &Selector) -> bool {
    selector.kind() == "unix" && selector.value().starts_with("sha256:")
}

fn is_fs_verity(selector: &Selector) -> bool {
    selector.kind() == "unix" && selector.value().starts_with("fs_verity:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> SelectorSet {
        texts.iter().map(|text| text.parse().expect("legal")).collect()
    }

    #[test]
    fn a_hash_is_wanted_only_of_processes_that_have_the_rest_of_an_entry_that_asks_for_it() {
        let entries = [set(&["unix:uid:1", "unix:sha256:00"]), set(&["unix:uid:2"]), set(&["other:sha256:00"])];
        let demand = Demand::of(&entries);
        let hashed = |demand: &Demand, found: &[&str]| demand.of_digests(&set(found)).sha256;
        assert!(hashed(&demand, &["unix:uid:1", "unix:gid:9"]));
        assert!(!hashed(&demand, &["unix:uid:2"]) && !hashed(&demand, &[]));
        assert!(!hashed(&Demand::default(), &["unix:uid:1"]));
        assert!(hashed(&Demand::of(&[set(&["unix:sha256:00"])]), &[]), "asks for the hash alone");
    }

    #[test]
    fn each_digest_is_wanted_where_an_entry_asks_for_it_and_both_where_one_entry_asks_for_both() {
        let demand = Demand::of(&[
            set(&["unix:uid:1", "unix:sha256:00"]),
            set(&["unix:uid:2", "unix:fs_verity:sha256:00"]),
            set(&["unix:uid:3", "unix:fs_verity:sha256:00", "unix:sha256:00", "unix:path:/a"]),
            set(&["unix:uid:4", "other:fs_verity:sha256:00"]),
        ]);
        for (found, sha256, fs_verity) in [
            (&["unix:uid:1"][..], true, false),
            (&["unix:uid:2"], false, true),
            (&["unix:uid:1", "unix:uid:2"], true, true),
            (&["unix:uid:3"], false, false),
            (&["unix:uid:3", "unix:path:/a"], true, true),
            (&["unix:uid:4"], false, false),
        ] {
            assert_eq!(demand.of_digests(&set(found)), DigestDemand { sha256, fs_verity }, "{found:?}");
        }
        assert!(demand.concerns(&set(&["unix:uid:2"])), "its executable is looked at");
    }

    #[test]
    fn an_executable_is_looked_at_only_for_users_of_entries_with_a_path_or_a_hash() {
        let entries = [set(&["unix:uid:1", "unix:sha256:00", "unix:path:/a"]), set(&["unix:uid:2", "unix:path:/b"])];
        let demand = Demand::of(entries.iter().chain(&[set(&["unix:uid:3"])]));
        for (uid, concerned) in [(1, true), (2, true), (3, false), (4, false)] {
            assert_eq!(demand.concerns(&set(&[&format!("unix:uid:{uid}")])), concerned, "{uid}");
        }
        assert!(!demand.of_digests(&set(&["unix:uid:1"])).sha256, "another path: the hash would not help");
        assert!(demand.of_digests(&set(&["unix:uid:1", "unix:path:/a"])).sha256);
    }

    #[test]
    fn systemd_is_asked_only_for_processes_that_its_answer_could_decide_about() {
        let demand = Demand::of(&[
            set(&["systemd:id:a.service", "unix:path:/a"]),
            set(&["systemd:fragment_path:/lib/b.service", "unix:uid:1"]),
            set(&["unix:uid:2"]),
        ]);
        for (found, expected) in [
            (&["systemd:id:a.service", "unix:uid:2"][..], UnitDemand::Id),
            (&["systemd:id:b.service", "unix:uid:1"], UnitDemand::File),
            (&["systemd:id:a.service", "unix:uid:1"], UnitDemand::File),
            (&["systemd:id:b.service", "unix:uid:2"], UnitDemand::Nothing),
        ] {
            assert_eq!(demand.of_unit(&set(found)), expected, "{found:?}");
            assert_eq!(demand.concerns_unit(&set(found)), expected != UnitDemand::Nothing);
        }
        assert_eq!(Demand::default().of_unit(&set(&["systemd:id:a.service"])), UnitDemand::Nothing);
    }

    #[test]
    fn of_an_entry_whose_key_is_in_hardware_all_else_that_it_asks_for_is_looked_for() {
        let demand = |more: &[&str]| Demand::of(&[set(&[&["unix:uid:1", "ironroot:hardware_key"], more].concat())]);
        let found = set(&["unix:uid:1", "systemd:id:a.service"]);
        for executable in ["unix:path:/a", "unix:sha256:00", "unix:fs_verity:sha256:00"] {
            assert!(demand(&[executable]).concerns(&found), "{executable}");
        }
        assert!(demand(&["unix:sha256:00"]).of_digests(&found).sha256);
        assert!(demand(&["unix:fs_verity:sha256:00"]).of_digests(&found).fs_verity);
        assert!(demand(&["unix:cgroup:/a"]).concerns_cgroup(&found));
        assert_eq!(demand(&["systemd:id:a.service"]).of_unit(&found), UnitDemand::Id);
        assert_eq!(demand(&["systemd:fragment_path:/a", "systemd:id:a.service"]).of_unit(&found), UnitDemand::File);
        assert!(demand(&["docker:label:a:b"]).of_containers(&found).docker);
        assert!(demand(&["k8s:ns:x"]).of_containers(&found).pods);
        assert!(!demand(&["k8s:ns:x"]).concerns_container(&set(&["unix:uid:2"])), "another user's process");
    }

    #[test]
    fn a_control_group_is_missed_only_by_users_of_entries_that_ask_for_one() {
        let demand = Demand::of(&[set(&["unix:cgroup:/a", "unix:uid:1", "systemd:id:a.scope", "unix:path:/a"])]);
        assert!(demand.concerns_cgroup(&set(&["unix:uid:1"])) && !demand.concerns_cgroup(&set(&["unix:uid:2"])));
        assert!(!Demand::default().concerns_cgroup(&set(&["unix:uid:1"])));
    }

    #[test]
    fn a_job_is_missed_only_by_users_of_entries_that_ask_for_one() {
        let demand =
            Demand::of(&[set(&["slurm:job_id:1", "slurm:step:0", "unix:uid:1", "systemd:id:slurmstepd.scope"])]);
        assert!(demand.concerns_job(&set(&["unix:uid:1"])) && !demand.concerns_job(&set(&["unix:uid:2"])));
        assert!(!Demand::default().concerns_job(&set(&["unix:uid:1"])));
        let found = set(&["unix:uid:1", "slurm:job_id:1", "slurm:step:0", "systemd:id:slurmstepd.scope"]);
        assert_eq!(demand.of_unit(&found), UnitDemand::Id, "a job is known before the unit");
    }

    #[test]
    fn containers_are_asked_for_only_of_processes_that_the_answer_could_decide_about() {
        let demand = Demand::of(&[
            set(&["docker:label:a:b", "unix:uid:1", "unix:path:/a"]),
            set(&["k8s:ns:x", "k8s:sa:y", "systemd:id:a.scope"]),
        ]);
        for (found, docker, pods) in [
            (&["unix:uid:1"][..], true, false),
            (&["unix:uid:2", "systemd:id:a.scope"], false, true),
            (&["unix:uid:2"], false, false),
        ] {
            assert_eq!(demand.of_containers(&set(found)), ContainerDemand { docker, pods }, "{found:?}");
            assert_eq!(demand.concerns_container(&set(found)), docker || pods);
        }
    }
}
