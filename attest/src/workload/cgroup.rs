//! `unix:cgroup`: the control group of a process in the unified hierarchy (cgroup v2), by its whole path. Ours, not SPIRE's.
//!
//! Only root, and whom root has delegated a group to, moves processes into it or makes groups below it. So an entry names a whole path:
//! what users make below what is delegated to them has another one.

use procfs::ProcessCGroups;
use thiserror::Error;

use super::process::Process;
use super::refusal::WorkloadRefusal;
use crate::Selector;

/// Longest path told, bytes: some forty levels of systemd's names.
const MAX_CGROUP_BYTES: usize = 1024;
/// The number of the unified hierarchy. Source: cgroups(7), /proc/PID/cgroup.
const UNIFIED: u32 = 0;
/// What the kernel writes behind a group that was removed while processes were in it. A group may be named so, too.
const REMOVED: &str = " (deleted)";

/// Why no `unix:cgroup` is told of a process.
#[derive(Debug, Error)]
pub enum CgroupUntold {
    /// Nothing could be read, or no text.
    #[error("its control groups cannot be read")]
    Unreadable(#[source] Box<WorkloadRefusal>),
    /// A kernel or a machine without cgroup v2.
    #[error("this machine has no unified hierarchy of control groups (cgroup v2)")]
    NoUnifiedHierarchy,
    /// The agent is in a cgroup namespace of its own.
    #[error("its control group is outside of the agent's cgroup namespace: run the agent in the host's")]
    Outside,
    /// Nobody can say any more where it was.
    #[error("its control group was removed")]
    Removed,
    /// `bytes` long.
    #[error("the path of its control group has {0} bytes, at most {MAX_CGROUP_BYTES} are told")]
    TooLong(usize),
    /// With control characters.
    #[error("the path of its control group {0:?} cannot be a selector")]
    Unspeakable(String),
}

/// What `process` has for a control group. True only if it is alive afterwards. Blocks on procfs.
pub(super) fn told(process: &Process) -> Result<Selector, CgroupUntold> {
    let groups = process.control_groups().map_err(|refusal| CgroupUntold::Unreadable(Box::new(refusal)))?;
    unified(&groups)
}

fn unified(groups: &ProcessCGroups) -> Result<Selector, CgroupUntold> {
    let path = unified_path(groups)?;
    Selector::new("unix", &format!("cgroup:{path}")).map_err(|_| CgroupUntold::Unspeakable(path.to_owned()))
}

/// The whole path in the unified hierarchy, if it names a place.
pub(super) fn unified_path(groups: &ProcessCGroups) -> Result<&str, CgroupUntold> {
    let group =
        groups.0.iter().find(|group| group.hierarchy == UNIFIED && group.controllers.iter().all(String::is_empty));
    let path = &group.ok_or(CgroupUntold::NoUnifiedHierarchy)?.pathname;
    match path {
        path if path.len() > MAX_CGROUP_BYTES => Err(CgroupUntold::TooLong(path.len())),
        path if path.split('/').any(|part| part == "..") => Err(CgroupUntold::Outside),
        path if path.ends_with(REMOVED) => Err(CgroupUntold::Removed),
        path if !path.starts_with('/') => Err(CgroupUntold::Unspeakable(path.clone())),
        path => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use procfs::FromBufRead;

    use super::*;

    fn of(lines: &str) -> Result<String, String> {
        let groups = ProcessCGroups::from_buf_read(lines.as_bytes()).expect("parses");
        unified(&groups).map(|selector| selector.to_string()).map_err(|why| why.to_string())
    }

    #[test]
    fn the_whole_path_in_the_unified_hierarchy_is_told_and_nothing_of_the_others() {
        for (lines, told) in [
            ("0::/system.slice/app.service\n", "unix:cgroup:/system.slice/app.service"),
            ("4:memory:/elsewhere\n1:name=systemd:/system.slice/b.service\n0::/a/b:c d\n", "unix:cgroup:/a/b:c d"),
            ("0::/\n", "unix:cgroup:/"),
        ] {
            assert_eq!(of(lines).as_deref(), Ok(told), "{lines}");
        }
    }

    #[test]
    fn what_names_no_place_for_certain_is_not_told() {
        let long = format!("0::/{}\n", "x".repeat(MAX_CGROUP_BYTES));
        for (lines, why) in [
            ("4:memory:/a\n1:name=systemd:/b\n", "has no unified hierarchy"),
            ("", "has no unified hierarchy"),
            ("0::/../../user.slice/a\n", "outside of the agent's cgroup namespace"),
            ("0::/a/b (deleted)\n", "was removed"),
            ("0::/a\tb\n", "cannot be a selector"),
            ("0::/a\u{1b}[0m\n", "cannot be a selector"),
            ("0::relative\n", "cannot be a selector"),
            (&long, "has 1025 bytes, at most 1024"),
        ] {
            let refused = of(lines).expect_err(lines);
            assert!(refused.contains(why), "{lines:?}: {refused}");
        }
        assert!(of(&format!("0::/{}\n", "x".repeat(MAX_CGROUP_BYTES - 1))).is_ok());
    }

    #[test]
    fn control_groups_survive_damage_here_too() {
        let lines = "12:cpu,cpuacct:/\n1:name=systemd:/system.slice/app.service\n0::/system.slice/app.service\n";
        ironroot_fuzz::Target::new("unified control groups").seed(lines).survives(|bytes| {
            let Ok(groups) = ProcessCGroups::from_buf_read(bytes) else { return };
            if let Ok(selector) = unified(&groups) {
                let path = selector.value().strip_prefix("cgroup:").expect("its name");
                assert!(path.starts_with('/') && path.len() <= MAX_CGROUP_BYTES && !path.contains(char::is_control));
            }
        });
    }
}
