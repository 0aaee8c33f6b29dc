//! Which container a process is in, by its control groups, and who keeps it. Pure.
//!
//! A container's group is named after its ID, 64 hexadecimal digits. Examples, as they are met:
//!
//! ```text
//!  /system.slice/docker-ID.scope   /docker/ID                                            docker
//!  /machine.slice/libpod-ID.scope/container                                              podman
//!  /user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope              podman of user 1000
//!  /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/cri-containerd-ID.scope    a kubelet
//! ```
//! Source: SPIRE, pkg/common/containerinfo, which takes the innermost ID. What is inside of a container, its own root arranges.

use procfs::{ProcessCGroup, ProcessCGroups};

use super::untold::ContainerUntold;

/// Hexadecimal digits of a container's ID. Source: SPIRE.
const ID_DIGITS: usize = 64;
/// Where kubelets keep their pods.
const KUBEPODS: &str = "kubepods";
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

/// The outermost container in a path: its ID, who keeps it, and the path down to it.
fn container(path: &str) -> Option<(String, Keeper, String)> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let at = parts.iter().position(|part| id_in(part).is_some())?;
    let id = id_in(parts[at])?.to_ascii_lowercase();
    let (above, down_to) = (&parts[..at], format!("/{}", parts[..=at].join("/")));
    let keeper = match is_below_kubepods(&parts) {
        true => Keeper::Kubernetes { pod: parts[..=at].iter().find_map(|part| pod_in(part)) },
        false => docker_or_podman(above, parts[at]),
    };
    Some((id, keeper, down_to))
}

/// Not wherever a user likes to make a group of that name. From a container of its own, the agent sees pods beside it, above its own group.
fn is_below_kubepods(parts: &[&str]) -> bool {
    let mut rest = parts.iter().skip_while(|part| **part == "..");
    let is_seen_from_within = parts.first() == Some(&"..");
    rest.next().is_some_and(|top| top.starts_with(KUBEPODS) || is_seen_from_within && pod_in(top).is_some())
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
            if let Ok(Some(place)) = Place::of(&groups) {
                assert_eq!(place.id.len(), ID_DIGITS);
                assert!(place.holds(&groups));
            }
        });
    }
}
