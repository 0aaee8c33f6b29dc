//! Which container a process is in, by its control groups, and who keeps it. Pure.
//!
//! A container's group is named after its ID, 64 hexadecimal digits. Examples, as they are met:
//!
//! ```text
//!  /system.slice/docker-ID.scope   /docker/ID                                            docker
//!  /machine.slice/libpod-ID.scope/container                                              podman
//!  /user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope              podman of user 1000
//!  /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/cri-containerd-ID.scope    a kubelet
//!  /kubelet.slice/kubelet-kubepods.slice/...   /kubelet/kubepods/...                     one with a cgroupRoot, such as kind's
//!  /../../../burstable/podUID/ID                                                         as an agent sees it that is in a pod itself
//! ```
//! Source: SPIRE, pkg/common/containerinfo, which takes the innermost ID. What is inside of a container, its own root arranges.

use procfs::{ProcessCGroup, ProcessCGroups};

use super::untold::ContainerUntold;

/// Hexadecimal digits of a container's ID. Source: SPIRE.
const ID_DIGITS: usize = 64;
/// Where kubelets keep their pods.
const KUBEPODS: &str = "kubepods";
/// What kind gives its kubelets for a cgroupRoot.
const CGROUP_ROOT: &str = "kubelet";
/// The kubelet's classes of pods, after which their groups are named where it makes no slices. Source: Kubernetes, "Pod Quality of
/// Service Classes"; pods of the third have no group of their class.
const CLASSES: [&str; 2] = ["burstable", "besteffort"];
/// Hexadecimal digits of the UID of a pod that a file on the node describes, which has no dashes.
const STATIC_UID_DIGITS: usize = 32;
/// Lengths of the parts of a pod's UID. Source: RFC 9562.
const UID_PARTS: [usize; 5] = [8, 4, 4, 4, 12];

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The container's ID, in lower case.
    pub id: String,
    pub keeper: Keeper,
    /// In each hierarchy that names it: the path down to the group that is named after it.
    groups: Vec<Group>,
}

/// Who keeps a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    Docker,
    /// Root's.
    Podman,
    /// This user's own.
    RootlessPodman(u32),
    /// A kubelet; the pod's UID if the runtime says it.
    Kubernetes {
        pod: Option<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    hierarchy: u32,
    controllers: Vec<String>,
    path: String,
}

impl Place {
    /// `None`: in no container. `Err`: hierarchies name several.
    pub fn of(groups: &ProcessCGroups) -> Result<Option<Self>, ContainerUntold> {
        let mut found: Option<Self> = None;
        for (group, (id, keeper, path)) in
            groups.0.iter().filter_map(|group| Some((group, container(&group.pathname)?)))
        {
            let group = Group { hierarchy: group.hierarchy, controllers: group.controllers.clone(), path };
            match &mut found {
                None => found = Some(Self { id, keeper, groups: vec![group] }),
                Some(place) if place.id == id && place.keeper == keeper => place.groups.push(group),
                Some(place) => return Err(ContainerUntold::Several(place.id.clone(), id)),
            }
        }
        Ok(found)
    }

    /// Whether a process in `others` is in the same groups, or below them.
    pub fn holds(&self, others: &ProcessCGroups) -> bool {
        let in_it = |group: &Group, other: &ProcessCGroup| {
            let below = other.pathname.strip_prefix(&group.path);
            group.hierarchy == other.hierarchy
                && group.controllers == other.controllers
                && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.groups.iter().all(|group| others.0.iter().any(|other| in_it(group, other)))
    }
}

/// Why a process whose groups name a pod is not known by it.
pub(super) fn unknown_pod(groups: &ProcessCGroups) -> Option<ContainerUntold> {
    let paths = groups.0.iter().map(|group| group.pathname.as_str());
    paths.filter_map(|path| Some((path, parts(path)?))).find_map(|(path, parts)| {
        match (parts.iter().any(|part| is_pods(part)), is_below_kubepods(&parts)) {
            (false, _) => None,
            (true, false) => Some(ContainerUntold::StrangePod(path.to_owned())),
            (true, true) => Some(ContainerUntold::NoContainer(path.to_owned())),
        }
    })
}

/// The outermost container in a path: its ID, who keeps it, and the path down to it.
fn container(path: &str) -> Option<(String, Keeper, String)> {
    let parts = parts(path)?;
    let at = parts.iter().position(|part| id_in(part).is_some())?;
    let id = id_in(parts[at])?.to_ascii_lowercase();
    let (above, down_to) = (&parts[..at], format!("/{}", parts[..=at].join("/")));
    let keeper = match is_below_kubepods(&parts) {
        true => Keeper::Kubernetes { pod: parts[..=at].iter().find_map(|part| pod_in(part)) },
        false => docker_or_podman(above, parts[at]),
    };
    Some((id, keeper, down_to))
}

fn parts(path: &str) -> Option<Vec<&str>> {
    Some(path.strip_prefix('/')?.split('/').collect())
}

/// Not wherever a user likes to make a group of that name. From a container of its own, the agent sees pods beside it, above its own group.
fn is_below_kubepods(parts: &[&str]) -> bool {
    let above = parts.iter().take_while(|part| **part == "..").count();
    let rest = &parts[above..];
    is_kubelets(rest) || above > 0 && is_beside_pods(rest)
}

/// From the root: the kubelet's tree, be it below its cgroupRoot.
fn is_kubelets(parts: &[&str]) -> bool {
    match parts {
        [top, ..] if top.starts_with(KUBEPODS) => true,
        [CGROUP_ROOT, KUBEPODS, ..] => true,
        _ => is_kubelets_slice(parts),
    }
}

/// Slices are named after those above them, and none is delegated to a user. Source: systemd.slice(5); systemd.resource-control(5), `Delegate=`.
fn is_kubelets_slice(parts: &[&str]) -> bool {
    let slices = parts.iter().map_while(|part| part.strip_suffix(".slice"));
    let mut above = None;
    for slice in slices {
        let below = above.map(|above| slice.strip_prefix(above).and_then(|rest: &str| rest.strip_prefix('-')));
        match below {
            Some(None) => return false,
            Some(Some(KUBEPODS)) => return true,
            Some(Some(_)) | None => above = Some(slice),
        }
    }
    false
}

/// From a pod: another one of its class; or of another class, whose group then holds the pod's and that its container's.
fn is_beside_pods(parts: &[&str]) -> bool {
    let is_of_pods = |part: &&str| CLASSES.contains(part) || part.contains(KUBEPODS);
    let Some(pod) = parts.iter().position(|part| is_pods(part)) else { return false };
    let holds = |part: &&str| id_in(part).is_some();
    match pod {
        0 => true,
        _ => parts[..pod].iter().all(is_of_pods) && parts[pod..].iter().take(2).any(holds),
    }
}

/// Source: SPIRE, pkg/agent/plugin/workloadattestor/docker, detectPodmanSocket.
fn docker_or_podman(above: &[&str], group: &str) -> Keeper {
    let is_podman = group.contains("libpod-") || above.contains(&"libpod");
    let user = above.iter().find_map(|part| part.strip_prefix("user-")?.strip_suffix(".slice")?.parse().ok());
    match (is_podman, user) {
        (false, _) => Keeper::Docker,
        (true, None) => Keeper::Podman,
        (true, Some(uid)) => Keeper::RootlessPodman(uid),
    }
}

fn id_in(part: &str) -> Option<&str> {
    let mut words = part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.find(|word| word.len() == ID_DIGITS && word.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The UID behind the word `pod`, with dashes: systemd's groups have underscores in their place.
fn pod_in(part: &str) -> Option<String> {
    part.match_indices("pod").find_map(|(at, word)| {
        let uid = part.get(at + word.len()..)?.get(..UID_PARTS.iter().sum::<usize>() + UID_PARTS.len() - 1)?;
        let uid = uid.replace('_', "-").to_ascii_lowercase();
        let is_hex = |part: &str| part.bytes().all(|b| b.is_ascii_hexdigit());
        let is_uid = uid.split('-').map(str::len).eq(UID_PARTS) && uid.split('-').all(is_hex);
        is_uid.then_some(uid)
    })
}

/// Whether a group is called after a pod.
fn is_pods(part: &str) -> bool {
    let is_static = |(at, word): (usize, &str)| {
        let digits = part[at + word.len()..].bytes().take_while(u8::is_ascii_hexdigit).count();
        digits == STATIC_UID_DIGITS
    };
    pod_in(part).is_some() || part.match_indices("pod").any(is_static)
}

#[cfg(test)]
mod tests {
    use procfs::FromBufRead;

    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb2";
    const POD: &str = "72f7f152-440c-66ac-9084-e0fc1d8a910c";

    fn groups(lines: &str) -> ProcessCGroups {
        ProcessCGroups::from_buf_read(lines.as_bytes()).expect("parses")
    }

    fn place(path: &str) -> Option<(String, Keeper)> {
        Place::of(&groups(&format!("0::{path}\n"))).expect("one").map(|place| (place.id, place.keeper))
    }

    fn pod(pod: Option<&str>) -> Keeper {
        Keeper::Kubernetes { pod: pod.map(str::to_owned) }
    }

    #[test]
    fn a_container_is_known_by_its_group_and_so_is_who_keeps_it() {
        let under = POD.replace('-', "_");
        for (path, id, keeper) in [
            (format!("/system.slice/docker-{A}.scope"), A, Keeper::Docker),
            (format!("/docker/{A}"), A, Keeper::Docker),
            (format!("/docker/{}", A.to_uppercase()), A, Keeper::Docker),
            (format!("/machine.slice/libpod-{A}.scope/container"), A, Keeper::Podman),
            (format!("/libpod_parent/libpod-{A}"), A, Keeper::Podman),
            (format!("/user.slice/user-7.slice/user@7.service/libpod-{A}.scope"), A, Keeper::RootlessPodman(7)),
            (
                format!("/kubepods.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{A}.scope"),
                A,
                pod(Some(POD)),
            ),
            (format!("/kubepods/besteffort/pod{POD}/{A}"), A, pod(Some(POD))),
            (format!("/kubepods-besteffort-pod{under}.slice:cri-containerd:{A}"), A, pod(Some(POD))),
            (format!("/../../pod{POD}/{A}"), A, pod(Some(POD))),
            (format!("/../kubepods-pod{under}.slice/crio-{A}.scope"), A, pod(Some(POD))),
            (format!("/kubepods/pod0123456789abcdef0123456789abcdef/{A}"), A, pod(None)),
            // Below the kubelet's cgroupRoot, which is kind's for each node.
            (format!("/kubelet/kubepods/burstable/pod{POD}/{A}"), A, pod(Some(POD))),
            (
                format!(
                    "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{under}.slice/cri-containerd-{A}.scope"
                ),
                A,
                pod(Some(POD)),
            ),
            (
                format!("/a.slice/a-b.slice/a-b-kubepods.slice/a-b-kubepods-pod{under}.slice/crio-{A}.scope"),
                A,
                pod(Some(POD)),
            ),
            (format!("/../../kubelet/kubepods/pod{POD}/{A}"), A, pod(Some(POD))),
            // A pod of another class than the agent's, which is in a pod itself.
            (format!("/../../../burstable/pod{POD}/{A}"), A, pod(Some(POD))),
            (format!("/../../../besteffort/pod0123456789abcdef0123456789abcdef/{A}"), A, pod(None)),
            (
                format!(
                    "/../../../kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{under}.slice/cri-containerd-{A}.scope"
                ),
                A,
                pod(Some(POD)),
            ),
            (format!("/../../../kubelet-kubepods-pod{under}.slice/cri-containerd-{A}.scope"), A, pod(Some(POD))),
            (
                format!("/../../kubelet-kubepods.slice/kubelet-kubepods-pod{under}.slice/cri-containerd-{A}.scope"),
                A,
                pod(Some(POD)),
            ),
        ] {
            assert_eq!(place(&path), Some((id.to_owned(), keeper)), "{path}");
        }
        for path in ["/", "/user.slice/user-7.slice/session-3.scope", "", "relative", &format!("/docker/{A}0")] {
            assert_eq!(place(path), None, "{path}");
        }
    }

    //= FLT-A27
    #[test]
    fn what_a_container_or_a_user_arranges_below_its_own_group_names_nobody_else() {
        // Its own root made a group of another container's name.
        assert_eq!(
            place(&format!("/system.slice/docker-{A}.scope/docker-{B}.scope")),
            Some((A.into(), Keeper::Docker))
        );
        assert_eq!(place(&format!("/docker/{A}/kubepods/pod{POD}/{B}")), Some((A.into(), Keeper::Docker)));
        // A user made a kubelet's tree below what was delegated to it.
        let users = "/user.slice/user-7.slice/user@7.service";
        assert_eq!(place(&format!("{users}/kubepods/pod{POD}/{B}")), Some((B.into(), Keeper::Docker)));
        assert_eq!(place(&format!("/../..{users}/kubepods/pod{POD}/{B}")), Some((B.into(), Keeper::Docker)));
        assert_eq!(place(&format!("/../x/pod{POD}/{B}")), Some((B.into(), Keeper::Docker)));
        for tree in [
            format!("{users}/kubelet/kubepods/pod{POD}/{B}"),
            format!("{users}/a.slice/a-kubepods.slice/a-kubepods-pod{POD}.slice/crio-{B}.scope"),
            format!("/../..{users}/burstable/pod{POD}/{B}"),
            format!("/../../user-7.slice/user@7.service/kubelet-kubepods.slice/pod{POD}/{B}"),
            format!("/../burstable/x/pod{POD}/{B}"),
            format!("/../burstable/{B}"),
            format!("/burstable/pod{POD}/{B}"),
            format!("/kubelet/x/kubepods/pod{POD}/{B}"),
            format!("/a.slice/b-kubepods.slice/pod{POD}/{B}"),
            format!("/a.slice/ab-kubepods.slice/pod{POD}/{B}"),
            format!("/a.slice/b.service/a-kubepods.slice/pod{POD}/{B}"),
        ] {
            assert_eq!(place(&tree), Some((B.into(), Keeper::Docker)), "{tree}");
        }
        let below = format!("/docker/{A}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{POD}.slice/{B}");
        assert_eq!(place(&below), Some((A.into(), Keeper::Docker)));
    }

    #[test]
    fn why_a_process_whose_groups_name_a_pod_is_not_known_by_it_is_said() {
        let why = |path: &str| unknown_pod(&groups(&format!("0::{path}\n")));
        let users = format!("/user.slice/user-7.slice/user@7.service/kubepods/pod{POD}/{B}");
        for strange in [users, format!("/docker/{A}/kubepods/pod{POD}/{B}"), format!("/burstable/pod{POD}/x")] {
            let found = why(&strange);
            assert!(matches!(&found, Some(ContainerUntold::StrangePod(path)) if *path == strange), "{found:?}");
        }
        let found = why(&format!("/kubepods/burstable/pod{POD}"));
        assert!(matches!(found, Some(ContainerUntold::NoContainer(_))), "{found:?}");
        for nobodys in ["/", "relative", "/user.slice/pods", &format!("/docker/{A}")] {
            assert!(why(nobodys).is_none(), "{nobodys}");
        }
    }

    #[test]
    fn hierarchies_that_name_two_containers_name_none() {
        let both = groups(&format!("3:memory:/docker/{A}\n2:cpu:/docker/{B}\n0::/\n"));
        assert!(matches!(Place::of(&both), Err(ContainerUntold::Several(..))));
        let same = groups(&format!("3:memory:/docker/{A}\n2:cpu:/docker/{A}\n0::/\n"));
        assert_eq!(Place::of(&same).expect("one").expect("there").groups.len(), 2);
    }

    #[test]
    fn a_process_is_in_a_container_only_in_the_same_group_or_below_it() {
        let ours = groups(&format!("2:cpu:/docker/{A}\n0::/docker/{A}/below\n"));
        let place = Place::of(&ours).expect("one").expect("there");
        for (lines, inside) in [
            (format!("2:cpu:/docker/{A}\n0::/docker/{A}\n"), true),
            (format!("2:cpu:/docker/{A}/init.scope\n0::/docker/{A}\n"), true),
            (format!("2:cpu:/docker/{A}\n0::/\n"), false),
            (format!("2:cpu:/docker/{A}-other\n0::/docker/{A}\n"), false),
            (format!("3:cpu:/docker/{A}\n0::/docker/{A}\n"), false),
            (format!("2:memory:/docker/{A}\n0::/docker/{A}\n"), false),
            (format!("2:cpu:/user.slice/{A}\n0::/docker/{A}\n"), false),
        ] {
            assert_eq!(place.holds(&groups(&lines)), inside, "{lines}");
        }
    }

    #[test]
    fn places_survive_damage() {
        let lines =
            format!("3:memory:/docker/{A}\n0::/kubepods.slice/kubepods-pod{POD}.slice/cri-containerd-{A}.scope\n");
        ironroot_fuzz::Target::new("places").seed(lines).survives(|bytes| {
            let Ok(groups) = ProcessCGroups::from_buf_read(bytes) else { return };
            drop(unknown_pod(&groups));
            if let Ok(Some(place)) = Place::of(&groups) {
                assert_eq!(place.id.len(), ID_DIGITS);
                assert!(place.holds(&groups));
            }
        });
    }
}
