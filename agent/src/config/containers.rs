//! `WorkloadAttestor "docker"` and `"k8s"`: SPIRE's keys.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ironroot_attest::workload::{
    CONTAINER_DEADLINE, ClientProof, DockerConfig, KubeletConfig, KubeletPort, ServerProof, SocketTemplate,
};
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::Section;
use nix::unistd::geteuid;

use super::PROGRAM;

/// The kubelet's port with TLS. Source: Kubernetes.
const SECURE_PORT: u16 = 10250;
/// Source: SPIRE.
const DEFAULT_POLL_ATTEMPTS: u32 = 60;
const DEFAULT_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The variable that names the node. Source: SPIRE.
const NODE_NAME_VARIABLE: &str = "MY_NODE_NAME";

/// The keys of "docker".
pub(super) fn read_docker(data: &Section<'_>) -> DockerConfig {
    read_locator(data);
    data.not_supported(PROGRAM, &["container_id_cgroup_matchers", "sigstore", "docker_host"]);
    let default = DockerConfig::default();
    let socket = |key, default| data.parsed(key, unix_socket).unwrap_or(default);
    let config = DockerConfig {
        docker_socket: socket("docker_socket_path", default.docker_socket),
        podman_socket: socket("podman_socket_path", default.podman_socket),
        rootless_podman: data.parsed("podman_socket_path_template", str::parse::<SocketTemplate>),
        version: data.parsed("docker_version", api_version),
    };
    data.doubt("docker_socket_path", || unreachable_docker(&config));
    config
}

/// The keys of "k8s".
pub(super) fn read_kubelet(data: &Section<'_>) -> KubeletConfig {
    read_locator(data);
    data.not_supported(PROGRAM, &["disable_kubelet_client", "enable_namespace_labels", "sigstore", "experimental"]);
    if data.has("reload_interval") {
        data.duration("reload_interval");
        data.warn("reload_interval", format!("has no meaning in {PROGRAM}, which reads the files at each question"));
    }
    let config = KubeletConfig {
        port: read_port(data),
        node_name: read_node_name(data),
        max_poll_attempts: data
            .integer("max_poll_attempts", 0..=1000)
            .and_then(|attempts| u32::try_from(attempts).ok())
            .filter(|attempts| *attempts > 0)
            .unwrap_or(DEFAULT_POLL_ATTEMPTS),
        poll_retry_interval: data
            .duration("poll_retry_interval")
            .filter(|interval| !interval.is_zero())
            .inspect(|interval| warn_of_one_attempt(data, *interval))
            .unwrap_or(DEFAULT_POLL_INTERVAL),
        disable_container_selectors: data.boolean("disable_container_selectors").unwrap_or(false),
        only_hybrid_key_exchange: false,
        last: Arc::default(),
    };
    data.look("token_path", || config.try_token().map_err(|error| describe(&error)));
    data.look("kubelet_ca_path", || config.try_tls().map_err(|error| describe(&error)));
    config
}

fn warn_of_one_attempt(data: &Section<'_>, interval: Duration) {
    if interval >= CONTAINER_DEADLINE {
        let seconds = CONTAINER_DEADLINE.as_secs();
        let warning = format!(
            "the kubelet has {seconds} s in all, so with this pause it is asked once, and the workload has to try again: keep it below"
        );
        data.warn("poll_retry_interval", warning);
    }
}

/// Why whoever looks can ask neither docker nor podman; a daemon may come later.
pub(crate) fn unreachable_docker(docker: &DockerConfig) -> Option<String> {
    let why = closed(&docker.docker_socket)?;
    closed(&docker.podman_socket)?;
    Some(format!("{why}; no process is known by its container until then"))
}

/// Why the socket `path` cannot be used by this user.
fn closed(path: &Path) -> Option<String> {
    let error = UnixStream::connect(path).err()?;
    let why = match error.kind() {
        ErrorKind::NotFound => "is not there: is the daemon installed, and does it run?".to_owned(),
        ErrorKind::PermissionDenied => {
            format!("is closed to this user (uid {}): put the agent's user into the socket's group", geteuid())
        }
        _ => format!("is not answered: {error}"),
    };
    Some(format!("{} {why}", path.display()))
}

fn read_locator(data: &Section<'_>) {
    data.no_meaning(PROGRAM, &["verbose_container_locator_logs"]);
    if data.boolean("use_new_container_locator") == Some(false) {
        data.mistake("use_new_container_locator", format!("not supported by {PROGRAM}: remove it"));
    }
}

fn read_port(data: &Section<'_>) -> KubeletPort {
    let port = |key| data.port(key, 0).filter(|port| *port > 0);
    let (read_only, secure) = (port("kubelet_read_only_port"), port("kubelet_secure_port"));
    let (server, client) = (read_server_proof(data), read_client_proof(data));
    if read_only.is_some() && secure.is_some() {
        data.mistake("kubelet_secure_port", "there is kubelet_read_only_port too: keep one of them");
    }
    match read_only {
        Some(port) => KubeletPort::ReadOnly(port),
        None => KubeletPort::Secure { port: secure.unwrap_or(SECURE_PORT), server, client },
    }
}

fn read_server_proof(data: &Section<'_>) -> ServerProof {
    let authorities = data.path("kubelet_ca_path");
    match data.boolean("skip_kubelet_verification") {
        Some(true) => ServerProof::Nothing,
        _ => authorities.map_or_else(ServerProof::default, ServerProof::Authorities),
    }
}

fn read_client_proof(data: &Section<'_>) -> ClientProof {
    let token = data.path("token_path");
    let (certificate, private_key) = (data.path("certificate_path"), data.path("private_key_path"));
    let is_anonymous = data.boolean("use_anonymous_authentication").unwrap_or(false);
    if is_anonymous && (token.is_some() || certificate.is_some() || private_key.is_some()) {
        data.mistake("use_anonymous_authentication", "there are token_path, certificate_path or private_key_path too");
    }
    match (is_anonymous, certificate, private_key) {
        (true, ..) => ClientProof::Anonymous,
        (false, Some(certificate), Some(private_key)) => ClientProof::Certificate { certificate, private_key },
        (false, None, None) => token.map_or_else(ClientProof::default, ClientProof::Token),
        (false, Some(_), None) => {
            data.mistake("certificate_path", "give its key in private_key_path");
            ClientProof::Anonymous
        }
        (false, None, Some(_)) => {
            data.mistake("private_key_path", "give its certificate in certificate_path");
            ClientProof::Anonymous
        }
    }
}

fn read_node_name(data: &Section<'_>) -> Option<String> {
    let variable = data.string("node_name_env").filter(|name| !name.is_empty());
    let named = data.string("node_name").filter(|name| !name.is_empty());
    let of_environment = || std::env::var(variable.as_deref().unwrap_or(NODE_NAME_VARIABLE)).ok();
    named.or_else(of_environment).filter(|name| !name.is_empty())
}

fn unix_socket(text: &str) -> Result<PathBuf, &'static str> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    match path.starts_with('/') {
        true => Ok(path.into()),
        false => Err("give a socket of this machine, such as unix:///var/run/docker.sock"),
    }
}

fn api_version(text: &str) -> Result<String, &'static str> {
    let version = text.strip_prefix('v').unwrap_or(text);
    let is_number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    match version.split_once('.') {
        Some((major, minor)) if is_number(major) && is_number(minor) => Ok(version.to_owned()),
        _ => Err("give a version of Docker's API, such as 1.41"),
    }
}
