//! The job of a process that Slurm runs, in the names of SPIRE's `slurm` attestor: `slurm:job_id` or `slurm:sluid`, and `slurm:step`.
//!
//! ```text
//!  /system.slice/[NODE_]slurmstepd.scope/job_4711 | s5K1KKYAYG5D00/step_0/user/task_0 ─► slurm:job_id:4711 | slurm:sluid:s5K1…, slurm:step:0
//! ```
//! Only root makes groups directly below `system.slice`, so a path from there on is Slurm's word. What looks like it below a group that was
//! delegated to a user is nobody's job. What a job makes below its step is the job's.
//! Source: SPIRE, pkg/agent/plugin/workloadattestor/slurm; Slurm, src/plugins/cgroup/v2 (the names of the groups).

use thiserror::Error;

use super::cgroup::{self, CgroupUntold};
use super::process::Process;
use crate::Selector;

/// The group that slurmstepd has itself put in by systemd; with several daemons on a machine behind `NODE_`.
const SCOPE: &str = "slurmstepd.scope";

/// Why no job is told of a process. It keeps its other selectors.
#[derive(Debug, Error)]
pub enum JobUntold {
    /// Nothing is known of where it belongs.
    #[error(transparent)]
    NoPlace(#[from] CgroupUntold),
    /// With control characters.
    #[error("the step {0:?} of its Slurm job cannot be a selector")]
    Unspeakable(String),
}

/// A job and its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step<'a> {
    job: Job<'a>,
    name: &'a str,
}

/// A job, by number or, from Slurm 26.05 on, by its SLUID (unless `CgroupJobIdPaths=yes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job<'a> {
    Number(&'a str),
    Sluid(&'a str),
}

/// What `process` has for a job; nothing if it is in none. True only if it is alive afterwards. Blocks on procfs.
pub(super) fn told(process: &Process) -> Result<Vec<Selector>, JobUntold> {
    let groups = process.control_groups().map_err(|refusal| CgroupUntold::Unreadable(Box::new(refusal)))?;
    selectors(cgroup::unified_path(&groups)?)
}

fn selectors(path: &str) -> Result<Vec<Selector>, JobUntold> {
    let Some(Step { job, name }) = step_of(path) else { return Ok(Vec::new()) };
    let job = match job {
        Job::Number(number) => format!("job_id:{number}"),
        Job::Sluid(sluid) => format!("sluid:{sluid}"),
    };
    let selector = |value: &str| Selector::new("slurm", value).map_err(|_| JobUntold::Unspeakable(name.to_owned()));
    Ok(vec![selector(&job)?, selector(&format!("step:{name}"))?])
}

fn step_of(path: &str) -> Option<Step<'_>> {
    let mut parts = path.strip_prefix("/system.slice/")?.split('/');
    let node = parts.next()?.strip_suffix(SCOPE)?;
    if !node.is_empty() && !node.ends_with('_') {
        return None;
    }
    let job = job_of(parts.next()?)?;
    let name = parts.next()?.strip_prefix("step_").filter(|name| !name.is_empty())?;
    Some(Step { job, name })
}

fn job_of(group: &str) -> Option<Job<'_>> {
    let all = |text: &str, is_legal: fn(&u8) -> bool| !text.is_empty() && text.bytes().all(|byte| is_legal(&byte));
    if let Some(number) = group.strip_prefix("job_") {
        return all(number, u8::is_ascii_digit).then_some(Job::Number(number));
    }
    let is_sluid = group.strip_prefix('s').is_some_and(|rest| all(rest, u8::is_ascii_alphanumeric));
    is_sluid.then_some(Job::Sluid(group))
}

#[cfg(test)]
mod tests {
    use procfs::{FromBufRead, ProcessCGroups};

    use super::*;

    fn of(path: &str) -> Vec<String> {
        selectors(path).expect("speakable").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_job_and_its_step_are_told_by_the_groups_that_slurm_makes() {
        for (path, told) in [
            ("/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0", ["slurm:job_id:4711", "slurm:step:0"]),
            (
                "/system.slice/slurmstepd.scope/job_1/step_batch/user/task_special",
                ["slurm:job_id:1", "slurm:step:batch"],
            ),
            ("/system.slice/node7_slurmstepd.scope/job_1/step_extern", ["slurm:job_id:1", "slurm:step:extern"]),
            (
                "/system.slice/slurmstepd.scope/s5K1KKYAYG5D00/step_interactive/slurm",
                ["slurm:sluid:s5K1KKYAYG5D00", "slurm:step:interactive"],
            ),
            // What a job makes below its step is the job's, whatever it is called.
            (
                "/system.slice/slurmstepd.scope/job_1/step_0/user/task_0/slurmstepd.scope/job_2/step_1",
                ["slurm:job_id:1", "slurm:step:0"],
            ),
        ] {
            assert_eq!(of(path), told, "{path}");
        }
    }

    #[test]
    fn what_only_looks_like_a_job_is_none() {
        for path in [
            "/user.slice/user-1000.slice/user@1000.service/slurmstepd.scope/job_1/step_0",
            "/user.slice/system.slice/slurmstepd.scope/job_1/step_0",
            "/system.slice/docker-0123.scope/system.slice/slurmstepd.scope/job_1/step_0",
            "/system.slice/app.service/slurmstepd.scope/job_1/step_0",
            "/system.slice/notslurmstepd.scope/job_1/step_0",
            "/system.slice/slurmstepd.scope.d/job_1/step_0",
            "/system.slice/slurmstepd.scope/system",
            "/system.slice/slurmstepd.scope/job_1",
            "/system.slice/slurmstepd.scope/job_1/step_",
            "/system.slice/slurmstepd.scope/job_1/user/step_0",
            "/system.slice/slurmstepd.scope/job_/step_0",
            "/system.slice/slurmstepd.scope/job_1x/step_0",
            "/system.slice/slurmstepd.scope/s/step_0",
            "/system.slice/slurmstepd.scope/s-1/step_0",
            "/system.slice/slurmstepd.scope/step_0",
            "system.slice/slurmstepd.scope/job_1/step_0",
            "/",
        ] {
            assert_eq!(of(path), [""; 0], "{path}");
        }
    }

    #[test]
    fn jobs_survive_damage() {
        let lines = "0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0\n";
        ironroot_fuzz::Target::new("groups of Slurm's jobs").seed(lines).survives(|bytes| {
            let Ok(groups) = ProcessCGroups::from_buf_read(bytes) else { return };
            let Ok(told) = cgroup::unified_path(&groups).map_err(JobUntold::from).and_then(selectors) else { return };
            assert!(told.is_empty() || told.len() == 2);
        });
    }
}
