//! Docker and podman, by docker's API.
//!
//! Source: Docker Engine API, ContainerInspect; SPIRE, pkg/agent/plugin/workloadattestor/docker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use serde::Deserialize;
use thiserror::Error;

use super::place::{Keeper, Place};
use super::question::{Door, Question, owner, socket_path};
use super::untold::ContainerUntold;
use super::{Process, selectors};
use crate::Selector;

/// Longest answer about one container, bytes: what its image and its owner say of it, several times over.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// Stands for the user's number.
const USER: &str = "%d";

/// Where docker and podman are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerConfig {
    /// Docker's socket.
    pub docker_socket: PathBuf,
    /// That of root's podman.
    pub podman_socket: PathBuf,
    /// Those of users' own podmans; `None`: what they say is not told.
    pub rootless_podman: Option<SocketTemplate>,
    /// The version of docker's API, such as `1.41`; the daemon's own if none is given.
    pub version: Option<String>,
}

impl Default for DockerConfig {
    /// What counts where the configuration says nothing.
    fn default() -> Self {
        Self {
            docker_socket: "/var/run/docker.sock".into(),
            podman_socket: "/run/podman/podman.sock".into(),
            rootless_podman: None,
            version: None,
        }
    }
}

/// The path of a user's socket, with `%d` in the place of its number and `%%` for a percent sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketTemplate(String);

/// Why a text is no template.
#[derive(Debug, Error)]
#[error(
    "give one path of the form unix:///run/user/%d/podman/podman.sock, in which %d stands once for the user's number"
)]
pub struct TemplateError;

impl FromStr for SocketTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let without_escapes = text.replace("%%", "");
        let legal = without_escapes.matches('%').count() == 1 && without_escapes.contains(USER);
        match socket_path(text).filter(|_| legal) {
            Some(path) => Ok(Self(path.to_string_lossy().into_owned())),
            None => Err(TemplateError),
        }
    }
}

impl SocketTemplate {
    fn of_user(&self, uid: u32) -> PathBuf {
        let pieces = self.0.split("%%").map(|piece| piece.replace(USER, &uid.to_string()));
        pieces.collect::<Vec<_>>().join("%").into()
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    /// The image's digest.
    #[serde(default)]
    image: String,
    state: State,
    config: Config,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    /// Of its first process, in the daemon's namespace.
    pid: i32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    env: Option<Vec<String>>,
    /// Its name, as it was asked for.
    #[serde(default)]
    image: String,
}

impl DockerConfig {
    /// What is said of the container at `place`. Blocks.
    pub(super) fn ask(&self, place: &Place, deadline: Instant) -> Result<Vec<Selector>, ContainerUntold> {
        let socket = self.socket(&place.keeper)?;
        let door = Door::Unix(&socket);
        let version = self.version.as_ref().map(|version| format!("/v{version}")).unwrap_or_default();
        let path = format!("{version}/containers/{}/json", place.id);
        let answer = door.ask(Question { path: &path, bearer: None, max_bytes: MAX_ANSWER_BYTES }, deadline)?;
        let inspected = parse(&answer).map_err(|error| ContainerUntold::Malformed { place: door.place(), error })?;
        inspected.check(place, &door)?;
        selectors("docker", inspected.values())
    }

    /// Whom to ask. A user's own podman must at least be that user's.
    fn socket(&self, keeper: &Keeper) -> Result<PathBuf, ContainerUntold> {
        let Keeper::RootlessPodman(expected) = *keeper else {
            return Ok(if *keeper == Keeper::Podman { self.podman_socket.clone() } else { self.docker_socket.clone() });
        };
        let template = self.rootless_podman.as_ref().ok_or(ContainerUntold::Rootless(expected))?;
        let socket = template.of_user(expected);
        match owner(&socket)? {
            owner if owner == expected => Ok(socket),
            owner => Err(ContainerUntold::NotTheirSocket { socket, owner, expected }),
        }
    }
}

fn parse(answer: &[u8]) -> Result<Inspected, serde_json::Error> {
    serde_json::from_slice(answer)
}

impl Inspected {
    /// Whether it is about the container at `place`, which runs there.
    fn check(&self, place: &Place, door: &Door<'_>) -> Result<(), ContainerUntold> {
        if !self.id.eq_ignore_ascii_case(&place.id) {
            let (place, asked) = (door.place(), place.id.clone());
            let answered = self.id.chars().take(64).collect();
            return Err(ContainerUntold::OtherContainer { place, asked, answered });
        }
        if !self.state.running || self.state.pid <= 0 {
            return Err(ContainerUntold::NotRunning(place.id.clone()));
        }
        //= FLT-A27 agent faults: "a control group of a container's name that a user made below its own"
        // Between the daemon's word and this look it may have ended: then nobody has moved it.
        let gone = || ContainerUntold::Gone(place.id.clone());
        let first = Process::open(self.state.pid).map_err(|_| gone())?;
        match first.control_groups() {
            Ok(groups) if place.holds(&groups) => Ok(()),
            _ if first.is_ending() => Err(gone()),
            _ => Err(ContainerUntold::NotInContainer(place.id.clone())),
        }
    }

    fn values(&self) -> impl Iterator<Item = String> {
        let named = |name: &str, value: &str| (!value.is_empty()).then(|| format!("{name}:{value}"));
        let labels = self.config.labels.iter().flatten().map(|(label, value)| format!("label:{label}:{value}"));
        let env = self.config.env.iter().flatten().map(|variable| format!("env:{variable}"));
        labels.chain(env).chain(named("image_id", &self.config.image)).chain(named("image_config_digest", &self.image))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"Id":"aa","Image":"sha256:01","State":{"Running":true,"Pid":7,"Status":"running"},
        "Config":{"Image":"web:1","Env":["A=b","C"],"Labels":{"com.example.name":"foo","x":"y:z"}},"HostConfig":{}}"#;

    #[test]
    fn a_container_has_spires_selectors() {
        let inspected = parse(ANSWER.as_bytes()).expect("parses");
        let values: Vec<_> = inspected.values().collect();
        let labels = ["label:com.example.name:foo", "label:x:y:z"];
        let expected = [&labels[..], &["env:A=b", "env:C", "image_id:web:1", "image_config_digest:sha256:01"]].concat();
        assert_eq!(values, expected);
        let bare = r#"{"Id":"aa","State":{"Running":true,"Pid":7},"Config":{"Labels":null,"Env":null}}"#;
        assert_eq!(parse(bare.as_bytes()).expect("parses").values().count(), 0);
    }

    #[test]
    fn answers_survive_damage() {
        ironroot_fuzz::Target::new("containers").seed(ANSWER).survives(|bytes| {
            if let Ok(inspected) = parse(bytes) {
                drop(selectors("docker", inspected.values()));
            }
        });
    }

    #[test]
    fn more_selectors_than_are_looked_at_are_none_and_those_that_cannot_be_selectors_are_left_out() {
        let values =
            |n: usize| (0..n).map(|n| format!("label:{n}:\u{7}").replace('\u{7}', if n == 0 { "\n" } else { "x" }));
        assert_eq!(selectors("docker", values(3)).expect("few").len(), 2);
        assert!(selectors("docker", values(super::super::MAX_SELECTORS + 1)).is_ok());
        let too_many = selectors("docker", values(super::super::MAX_SELECTORS + 2));
        assert!(matches!(too_many, Err(ContainerUntold::TooMany)), "{too_many:?}");
    }

    #[test]
    fn a_users_socket_is_named_by_a_template() {
        for (text, path) in [
            ("unix:///run/user/%d/podman/podman.sock", Some("/run/user/7/podman/podman.sock")),
            ("/a%%b/%d", Some("/a%b/7")),
            ("unix:///run/podman.sock", None),
            ("unix:///%d/%d", None),
            ("unix:///%d/%s", None),
            ("unix:///%d%", None),
            ("%d", None),
            ("tcp://%d", None),
        ] {
            let found = text.parse::<SocketTemplate>().ok().map(|template| template.of_user(7));
            assert_eq!(found, path.map(PathBuf::from), "{text}");
        }
    }
}
