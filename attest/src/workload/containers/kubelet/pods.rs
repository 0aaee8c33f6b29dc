//! A kubelet's list of pods, as far as selectors are made of it. Pure.
//!
//! Source: Kubernetes API, v1 PodList; SPIRE, getSelectorValuesFromPodInfo and getSelectorValuesFromWorkloadContainerStatus.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::workload::containers::untold::ContainerUntold;

/// The pods of this node.
#[derive(Debug, Deserialize)]
pub struct Pods {
    /// Absent or null: none.
    #[serde(default)]
    items: Option<Vec<Pod>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<Owner>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Owner {
    kind: String,
    name: String,
    uid: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    service_account_name: String,
    node_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    container_statuses: Option<Vec<Container>>,
    init_container_statuses: Option<Vec<Container>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
    image: String,
    #[serde(rename = "imageID")]
    image_id: String,
    /// Such as `containerd://ID`; empty before it runs.
    #[serde(rename = "containerID")]
    container_id: String,
}

impl Pods {
    pub(super) fn parse(answer: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(answer)
    }

    /// The values of the selectors of the pod with the container `id`, which is the pod with the UID `pod` if that is known. With
    /// `tells_containers` only if the container is among the pod's, and then of it too. `None`: the kubelet does not know it yet.
    pub(super) fn values(
        &self,
        id: &str,
        pod: Option<&str>,
        tells_containers: bool,
    ) -> Result<Option<Vec<String>>, ContainerUntold> {
        let candidates = self.items.iter().flatten().filter(|item| pod.is_none_or(|uid| uid == item.metadata.uid));
        let mut found = None;
        for item in candidates {
            let container = item.container(id);
            if container.is_none() && (pod.is_none() || tells_containers) {
                continue;
            }
            let of_container = container.filter(|_| tells_containers).into_iter().flat_map(Container::values);
            if found.replace(item.values().chain(of_container).collect()).is_some() {
                return Err(ContainerUntold::TwoPods(id.to_owned()));
            }
        }
        Ok(found)
    }
}

impl Pod {
    fn containers(&self) -> impl Iterator<Item = &Container> {
        self.status.container_statuses.iter().flatten()
    }

    fn init_containers(&self) -> impl Iterator<Item = &Container> {
        self.status.init_container_statuses.iter().flatten()
    }

    fn container(&self, id: &str) -> Option<&Container> {
        let mut all = self.containers().chain(self.init_containers());
        all.find(|container| container.container_id.split_once("://").is_some_and(|(_, theirs)| theirs == id))
    }

    fn values(&self) -> impl Iterator<Item = String> {
        let Metadata { name, namespace, uid, labels, owner_references } = &self.metadata;
        let facts = [
            format!("sa:{}", self.spec.service_account_name),
            format!("ns:{namespace}"),
            format!("node-name:{}", self.spec.node_name),
            format!("pod-uid:{uid}"),
            format!("pod-name:{name}"),
            format!("pod-image-count:{}", self.containers().count()),
            format!("pod-init-image-count:{}", self.init_containers().count()),
        ];
        let images =
            of_images("pod-image", self.containers()).chain(of_images("pod-init-image", self.init_containers()));
        let labels = labels.iter().flatten().map(|(label, value)| format!("pod-label:{label}:{value}"));
        let owners = owner_references.iter().flatten().flat_map(|Owner { kind, name, uid }| {
            [format!("pod-owner:{kind}:{name}"), format!("pod-owner-uid:{kind}:{uid}")]
        });
        facts.into_iter().chain(images).chain(labels).chain(owners)
    }
}

impl Container {
    fn values(&self) -> impl Iterator<Item = String> {
        std::iter::once(format!("container-name:{}", self.name))
            .chain(of_images("container-image", std::iter::once(self)))
    }
}

/// By digest and by name; each once.
fn of_images<'a>(kind: &str, containers: impl Iterator<Item = &'a Container>) -> impl Iterator<Item = String> {
    let images: BTreeSet<&str> =
        containers.flat_map(|container| [container.image_id.as_str(), container.image.as_str()]).collect();
    images.into_iter().map(|image| format!("{kind}:{image}")).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961";
    const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";

    fn answer() -> String {
        format!(
            r#"{{"kind":"PodList","apiVersion":"v1","items":[
            {{"metadata":{{"name":"blog","namespace":"default","uid":"{UID}","labels":{{"app":"blog"}},
              "ownerReferences":[{{"kind":"ReplicaSet","name":"rs","uid":"u1","controller":true}}]}},
              "spec":{{"serviceAccountName":"sa1","nodeName":"node1","containers":[{{"name":"blog"}}]}},
              "status":{{"containerStatuses":[{{"name":"blog","image":"blog:1","imageID":"blog@sha256:01",
              "containerID":"containerd://{ID}"}},{{"name":"new","image":"x","imageID":""}}],
              "initContainerStatuses":[{{"name":"init","image":"i","imageID":"i","containerID":"docker://ff"}}]}}}},
            {{"metadata":{{"name":"other","namespace":"ns2","uid":"u2"}},"spec":{{}},"status":{{}}}}]}}"#
        )
    }

    fn values(id: &str, pod: Option<&str>, tells_containers: bool) -> Option<Vec<String>> {
        let pods = Pods::parse(answer().as_bytes()).expect("parses");
        let values = pods.values(id, pod, tells_containers).expect("one");
        values.map(|mut values| {
            values.sort();
            values
        })
    }

    #[test]
    fn a_pod_and_its_container_have_spires_selectors() {
        let pod = [
            "node-name:node1",
            "ns:default",
            "pod-image-count:2",
            "pod-image:",
            "pod-image:blog:1",
            "pod-image:blog@sha256:01",
            "pod-image:x",
            "pod-init-image-count:1",
            "pod-init-image:i",
            "pod-label:app:blog",
            "pod-name:blog",
            "pod-owner-uid:ReplicaSet:u1",
            "pod-owner:ReplicaSet:rs",
            "pod-uid:2c48913c-b29f-11e7-9350-020968147796",
            "sa:sa1",
        ];
        let container = ["container-image:blog:1", "container-image:blog@sha256:01", "container-name:blog"];
        let both: Vec<_> = container.iter().chain(&pod).map(|text| (*text).to_owned()).collect();
        assert_eq!(values(ID, Some(UID), true), Some(both.clone()));
        assert_eq!(values(ID, None, true), Some(both), "by the container alone");
        assert_eq!(values(ID, Some(UID), false), Some(pod.map(str::to_owned).to_vec()));
        assert!(values("ff", None, true).is_some_and(|found| found.contains(&"container-name:init".to_owned())));
    }

    #[test]
    fn a_container_that_the_kubelet_does_not_know_yet_has_no_pod_unless_the_pod_alone_is_asked_for() {
        let unknown = "0".repeat(64);
        assert_eq!(values(&unknown, Some(UID), true), None);
        assert!(values(&unknown, Some(UID), false).is_some());
        assert_eq!(values(&unknown, None, false), None);
        assert_eq!(values(ID, Some("u2"), true), None, "it is in another pod");
        for empty in ["{}", r#"{"items":null}"#, r#"{"items":[]}"#] {
            assert!(Pods::parse(empty.as_bytes()).expect("no pods").values(ID, None, true).expect("none").is_none());
        }
    }

    #[test]
    fn two_pods_with_one_container_are_none() {
        let twice = answer()
            .replace(
                "\"u2\"},\"spec\":{},\"status\":{}",
                "\"u2\"},\"spec\":{},\"status\":{\"containerStatuses\":[{\"containerID\":\"containerd://ID\"}]}",
            )
            .replace("//ID\"", &format!("//{ID}\""));
        let pods = Pods::parse(twice.as_bytes()).expect("parses");
        assert!(matches!(pods.values(ID, None, true), Err(ContainerUntold::TwoPods(_))));
    }

    #[test]
    fn lists_of_pods_survive_damage() {
        ironroot_fuzz::Target::new("pods").seed(answer()).survives(|bytes| {
            if let Ok(pods) = Pods::parse(bytes) {
                for pod in [None, Some(UID)] {
                    drop(pods.values(ID, pod, true));
                }
            }
        });
    }
}
