//! The `plugins` block. Every plugin is built in; the block chooses and configures them.

use std::path::Path;

use ironroot_attest::tpm::TpmAddress;
use ironroot_attest::workload::ContainerConfig;
use ironroot_hsm::settings::read_access;
use ironroot_shell::settings::{Section, places};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::containers::{read_docker, read_kubelet};
use super::tpm::TpmKeys;
use super::{JoinToken, KeyManager, NodeAttestor, PROGRAM, TpmConfig, UnixAttestorConfig, WorkloadAttestors, tpm_of};
use crate::token::LazyToken;

pub(super) struct Plugins {
    pub(super) node_attestor: NodeAttestor,
    pub(super) key_manager: KeyManager,
    pub(super) workload_attestor: UnixAttestorConfig,
    pub(super) containers: ContainerConfig,
}

/// Reads the block; `join_token` is what the `agent` block gave.
pub(super) fn read(plugins: &Section<'_>, join_token: Option<JoinToken>) -> Option<Plugins> {
    plugins.not_supported(PROGRAM, &["SVIDStore"]);
    let attestor = NodeAttestor::read(plugins, join_token);
    let key = read_key_manager(plugins);
    let workloads = read_workload_attestors(plugins);
    plugins.finish();
    let ((node_attestor, attestor_tpm), (key_manager, key_tpm)) = (attestor?, key?);
    let is_named = !attestor_tpm.is_mistaken() && !key_tpm.is_mistaken();
    let tpm = match attestor_tpm.with(key_tpm) {
        Ok(tpm) => tpm,
        Err(contradiction) => {
            plugins.mistake("KeyManager", contradiction);
            return None;
        }
    };
    let (node_attestor, key_manager) = (node_attestor.on(&tpm), key_manager.on(&tpm));
    if let Some(TpmAddress::Device(device)) = tpm_of(&node_attestor, &key_manager).map(|tpm| &tpm.address)
        && is_named
    {
        let wants_it = if node_attestor.chip().is_some() { "NodeAttestor" } else { "KeyManager" };
        plugins.look(wants_it, || usable_device(device));
    }
    let (workload_attestor, containers) = workloads?;
    Some(Plugins { node_attestor, key_manager, workload_attestor, containers })
}

impl KeyManager<()> {
    /// As [`NodeAttestor::on`].
    fn on(self, tpm: &TpmConfig) -> KeyManager {
        match self {
            Self::Tpm(()) => KeyManager::Tpm(tpm.clone()),
            Self::Token { token, label } => KeyManager::Token { token, label },
            Self::Disk { directory } => KeyManager::Disk { directory },
            Self::Memory => KeyManager::Memory,
        }
    }
}

fn read_key_manager(plugins: &Section<'_>) -> Option<(KeyManager<()>, TpmKeys)> {
    let hint = "say where the agent's own key lives: add KeyManager \"tpm\" { }, or \"pkcs11\", \"disk\" or \"memory\"";
    let plugin = plugins.required("KeyManager", plugins.only_plugin("KeyManager"), hint)?;
    let data = &plugin.data;
    let manager = match plugin.name.as_str() {
        "tpm" => {
            let tpm = TpmKeys::read_for_keys(data);
            Some((KeyManager::Tpm(()), tpm))
        }
        "pkcs11" => read_token_keys(data).map(|manager| (manager, TpmKeys::default())),
        "memory" => Some((KeyManager::Memory, TpmKeys::default())),
        "disk" => {
            let directory = data.required("directory", data.path("directory"), "give the directory for the key");
            if let Some(directory) = &directory {
                data.look("directory", || places::usable_or_read_only_directory(directory));
                data.doubt("directory", || places::read_only_directory(directory));
            }
            directory.map(|directory| (KeyManager::Disk { directory }, TpmKeys::default()))
        }
        _ => {
            let reason = format!("not supported by {PROGRAM} yet: use \"tpm\", \"pkcs11\", \"disk\" or \"memory\"");
            plugins.plugin_mistake("KeyManager", &plugin, reason);
            return None;
        }
    };
    data.finish();
    manager
}

/// How labels of the agent's keys begin in a token that no other agent uses.
const DEFAULT_KEY_LABEL: &str = "ironroot-agent";
/// Longest such beginning, bytes: tokens keep labels of 32 bytes at least.
pub(super) const MAX_KEY_LABEL_BYTES: usize = 28;

fn read_token_keys(data: &Section<'_>) -> Option<KeyManager<()>> {
    let access = read_access(data);
    let label = data.parsed("key_label", |label| match label.len() <= MAX_KEY_LABEL_BYTES {
        true => Ok(label.to_owned()),
        false => Err(format!("longer than {MAX_KEY_LABEL_BYTES} bytes")),
    });
    let label = if data.has("key_label") { label? } else { DEFAULT_KEY_LABEL.to_owned() };
    Some(KeyManager::Token { token: LazyToken::new(access?), label })
}

/// Whether this process may talk to the chip. Asked of the file system: opening a chip can disturb whoever uses it.
fn usable_device(device: &Path) -> Result<(), String> {
    let hint = match access(device, AccessFlags::R_OK | AccessFlags::W_OK) {
        Ok(()) => return Ok(()),
        Err(Errno::ENOENT) => {
            "is there a TPM, and does the kernel have its driver? Otherwise name it with tpm_device_path"
        }
        Err(Errno::EACCES) => "run the agent as a user of the group tss",
        Err(_) => "name the TPM with tpm_device_path",
    };
    Err(format!("cannot use the TPM {}: {hint}", device.display()))
}

fn read_workload_attestors(plugins: &Section<'_>) -> Option<(UnixAttestorConfig, ContainerConfig)> {
    let (mut config, mut containers) = (None, ContainerConfig::default());
    let mut attestors = WorkloadAttestors::default();
    let found = plugins.plugins("WorkloadAttestor");
    for plugin in &found {
        match plugin.name.as_str() {
            "unix" => {
                config = Some(read_unix_attestor(&plugin.data));
                attestors.unix = true;
            }
            "slurm" => attestors.slurm = true,
            "systemd" => attestors.systemd = true,
            "docker" => containers.docker = Some(read_docker(&plugin.data)),
            "k8s" => containers.kubelet = Some(read_kubelet(&plugin.data)),
            _ => {
                let reason = format!(
                    "not supported by {PROGRAM} yet: use \"unix\", \"systemd\", \"docker\", \"k8s\" and \"slurm\""
                );
                plugins.plugin_mistake("WorkloadAttestor", plugin, reason);
                continue;
            }
        }
        plugin.data.finish();
    }
    let hint = "workloads could not be told apart: add WorkloadAttestor \"unix\" { plugin_data { } }";
    let tells = attestors != WorkloadAttestors::default() || containers.is_some();
    let attestors = tells.then_some(attestors);
    let attestors = plugins.required("WorkloadAttestor", attestors, hint)?;
    Some((UnixAttestorConfig { attestors, ..config.unwrap_or_default() }, containers))
}

/// The keys of "unix"; which attestors there are is for the caller to say.
fn read_unix_attestor(data: &Section<'_>) -> UnixAttestorConfig {
    let default = UnixAttestorConfig::default();
    let size = data.integer("workload_size_limit", i64::MIN..=i64::MAX);
    let boolean = |key, default| data.boolean(key).unwrap_or(default);
    UnixAttestorConfig {
        discover_workload_path: boolean("discover_workload_path", default.discover_workload_path),
        workload_size_limit: size.unwrap_or(default.workload_size_limit),
        executable_selectors: data.parsed("executable_selectors", str::parse).unwrap_or_default(),
        executable_in_other_mounts: boolean("executable_in_other_mounts", default.executable_in_other_mounts),
        discover_cgroup: boolean("discover_cgroup", default.discover_cgroup),
        allow_executable_only: boolean("allow_executable_only", default.allow_executable_only),
        attestors: default.attestors,
        connection_writer: data.parsed("connection_writer", str::parse).unwrap_or_default(),
    }
}
