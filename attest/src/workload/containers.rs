//! The container of a process, in the names of SPIRE's attestors `docker` and `k8s`.
//!
//! ```text
//!  /proc/PID/cgroup ─► place: which container, whose ─┬─ no entry asks ─► nothing
//!                                                     ├─ docker, podman: what is it? ─► its first process in the same group? ─► docker:...
//!                                                     └─ kubelet: which pod is it in? ────────────────────────────────────────► k8s:...
//! ```
//! A control group's name is no proof: users make groups of any name below what was delegated to them, and containers below their own. So
//! the outermost container counts, docker's first process must be in the very group of the one that asks, pods are only where kubelets
//! make them (a group elsewhere that is called after one is withheld, and that is said), and what a user's own podman says is told only if the operator wants it. `/proc/PID/mountinfo`, which the process arranges,
//! is not read. If the process was moved while somebody was asked, nothing is told. If nobody could be asked, what was said of the same
//! process in the same groups counts on for a while (`kept`).
//!
//! Whatever fails costs the container's selectors alone. Blocking.

mod docker;
mod kubelet;
mod place;
mod question;
mod untold;

use std::time::{Duration, Instant};

use procfs::ProcessCGroups;

pub use docker::{DockerConfig, SocketTemplate, TemplateError};
pub use kubelet::{ClientProof, KubeletConfig, KubeletError, KubeletPort, ServerProof};
pub use question::QuestionError;
pub use untold::ContainerUntold;

use super::kept::are_same;
use super::outage::{Outage, Outages};
use super::peer::Peer;
use super::process::Process;
use crate::Selector;
use place::{Keeper, Place};
pub(super) use untold::MAX_SELECTORS;

/// How long whoever is asked for a container may take in all. They answer within milliseconds.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Who is asked for containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerConfig {
    /// `docker`: docker or podman.
    pub docker: Option<DockerConfig>,
    /// `k8s`: the kubelet of this machine.
    pub kubelet: Option<KubeletConfig>,
}

/// Whom entries want to be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ContainerDemand {
    pub docker: bool,
    pub pods: bool,
}

/// What is told of a process's container, and whose words are missing and why.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub selectors: Vec<Selector>,
    pub withheld: Vec<(&'static str, ContainerUntold)>,
    /// Whether the selectors are of an earlier answer, since nobody can be asked now.
    pub is_kept: bool,
}

impl ContainerConfig {
    /// Whether anybody is asked.
    pub fn is_some(&self) -> bool {
        self.docker.is_some() || self.kubelet.is_some()
    }

    /// What `process`, which is `peer`'s, has for a container. True only if `peer` is alive afterwards.
    pub(super) fn told(&self, peer: &Peer, process: &Process, wanted: ContainerDemand, outages: &Outages) -> Told {
        // A kernel without control groups has no containers.
        let Ok(groups) = process.control_groups() else { return Told::default() };
        let place = Place::of(&groups);
        let unknown_pod = self.unknown_pod(&groups, &place, wanted);
        let mut told = self.asked(peer, process, (&groups, place), wanted, outages);
        told.withheld.extend(unknown_pod.map(|why| ("k8s", why)));
        told
    }

    /// Why the kubelet is not asked for a process that seems to be in a pod.
    fn unknown_pod(
        &self,
        groups: &ProcessCGroups,
        place: &Result<Option<Place>, ContainerUntold>,
        wanted: ContainerDemand,
    ) -> Option<ContainerUntold> {
        let is_known = match place {
            Ok(place) => place.as_ref().is_some_and(|place| matches!(place.keeper, Keeper::Kubernetes { .. })),
            // Which is said.
            Err(_) => true,
        };
        let asks = wanted.pods && self.kubelet.is_some();
        if asks && !is_known { place::unknown_pod(groups) } else { None }
    }

    fn asked(
        &self,
        peer: &Peer,
        process: &Process,
        (groups, place): (&ProcessCGroups, Result<Option<Place>, ContainerUntold>),
        wanted: ContainerDemand,
        outages: &Outages,
    ) -> Told {
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let (name, outage, asked) = match place {
            Ok(None) => return Told::default(),
            Err(_) if !wanted.docker && !wanted.pods => return Told::default(),
            Err(why) => ("docker, k8s", None, Err(why)),
            Ok(Some(place)) => match (&place.keeper, &self.docker, &self.kubelet) {
                (Keeper::Kubernetes { .. }, _, Some(kubelet)) if wanted.pods => {
                    ("k8s", Some(&outages.kubelet), kubelet.ask(&place, deadline))
                }
                (Keeper::Kubernetes { .. }, ..) => return Told::default(),
                (keeper, Some(docker), _) if wanted.docker => {
                    ("docker", outage_of(keeper, outages), docker.ask(&place, deadline))
                }
                _ => return Told::default(),
            },
        };
        outage.into_iter().for_each(|outage| note(outage, &asked));
        //= FLT-A27 agent faults: "moved into another control group while its container is asked for"
        let is_unmoved = process.control_groups().is_ok_and(|now| are_same(&now, groups));
        let kept = &peer.said().container;
        match asked {
            Ok(_) if !is_unmoved => Told::untold(name, ContainerUntold::Moved),
            Ok(selectors) => {
                kept.prove(groups, &selectors);
                Told { selectors, ..Told::default() }
            }
            //= FLT-A27 agent faults: "what was said of the same process in the same groups counts on for a while"
            Err(why) if why.is_unanswered() => match kept.instead(groups, Instant::now()).filter(|_| is_unmoved) {
                Some(selectors) => Told { selectors, withheld: Vec::new(), is_kept: true },
                None => Told::untold(name, why),
            },
            Err(why) => {
                let is_newcomer = !kept.forget();
                Told::untold(name, if is_newcomer { why.of_a_newcomer() } else { why })
            }
        }
    }
}

impl Told {
    fn untold(name: &'static str, why: ContainerUntold) -> Self {
        Self { withheld: vec![(name, why)], ..Self::default() }
    }
}

/// Of a user's own podman nothing is said.
fn outage_of<'a>(keeper: &Keeper, outages: &'a Outages) -> Option<&'a Outage> {
    match keeper {
        Keeper::Docker => Some(&outages.docker),
        Keeper::Podman => Some(&outages.podman),
        Keeper::RootlessPodman(_) => None,
        Keeper::Kubernetes { .. } => Some(&outages.kubelet),
    }
}

fn note<T>(outage: &Outage, asked: &Result<T, ContainerUntold>) {
    match asked {
        Err(why) if why.is_unanswered() => outage.failed(why),
        _ => outage.answered(),
    }
}

/// The selectors of `kind` with these values; those that cannot be selectors, such as labels with a line end, are left out.
fn selectors(kind: &str, values: impl Iterator<Item = String>) -> Result<Vec<Selector>, ContainerUntold> {
    let mut found = Vec::new();
    for selector in values.filter_map(|value| Selector::new(kind, &value).ok()) {
        if found.len() == MAX_SELECTORS {
            return Err(ContainerUntold::TooMany);
        }
        found.push(selector);
    }
    Ok(found)
}
