//! `KeyManager`: where the CA's keys are made, and where those are that it moves away from.

use std::path::{Path, PathBuf};

use ironroot_shell::command_line::describe;
use ironroot_shell::settings::{Plugin, Section, places};

use super::server_block::ServerBlock;
use super::{LoginMode, PROGRAM, Pkcs11Config, pkcs11};
use crate::keys::KeyFile;

const PLUGIN: &str = "KeyManager";
/// Why a server should not keep its keys so.
pub(super) const NOT_IN_HARDWARE: &str = "the CA's private keys are not in hardware: whoever can read them can issue every identity; use KeyManager \"pkcs11\" but for \
     moving over and for trials";

/// Where keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyManagerConfig {
    /// In a PKCS#11 token.
    Pkcs11(Box<Pkcs11Config>),
    /// In a file of SPIRE's form.
    Disk(PathBuf),
    /// In the process.
    Memory,
}

/// The key manager that keys are made in, and the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyManagersConfig {
    /// Where keys are made.
    pub current: KeyManagerConfig,
    /// Where those are that signed before (`previous = true`).
    pub former: Option<KeyManagerConfig>,
}

impl KeyManagerConfig {
    /// The token, if it is one.
    pub fn pkcs11(&self) -> Option<&Pkcs11Config> {
        match self {
            Self::Pkcs11(token) => Some(token),
            Self::Disk(_) | Self::Memory => None,
        }
    }

    /// The file, if it is one.
    pub fn disk(&self) -> Option<&Path> {
        match self {
            Self::Disk(path) => Some(path),
            Self::Pkcs11(_) | Self::Memory => None,
        }
    }

    /// How to log in, where that is needed.
    pub fn login(&self) -> Option<&LoginMode> {
        self.pkcs11().map(|token| &token.login)
    }
}

impl KeyManagersConfig {
    /// The file that keys are in, whether they are made there or the CA moves away from it.
    pub fn key_file(&self) -> Option<&Path> {
        std::iter::once(&self.current).chain(&self.former).find_map(KeyManagerConfig::disk)
    }

    /// How many keys an administrator has made for it.
    pub fn given_keys(&self) -> usize {
        self.current.pkcs11().map_or(0, |token| token.given_keys.len())
    }
}

/// Reads the one block, or the two of them.
pub(super) fn read(plugins: &Section<'_>, server: Option<&ServerBlock>) -> Option<KeyManagersConfig> {
    let blocks = plugins.plugins(PLUGIN);
    let hint = "the CA's keys live in a PKCS#11 token: add KeyManager \"pkcs11\" { plugin_data { module_path, token_label, pin_file } }";
    let (former, current): (Vec<_>, Vec<_>) =
        blocks.iter().partition(|block| block.data.boolean("previous").unwrap_or(false));
    let one = only_one(
        plugins,
        &current,
        "only one makes keys: keep one, or add previous = true to the one that the CA moves away from",
    );
    let before = only_one(plugins, &former, "the CA moves away from one at a time: keep one with previous = true");
    if blocks.is_empty() {
        plugins.required::<()>(PLUGIN, None, hint);
    } else if let (None, Some(former)) = (one, before) {
        plugins.plugin_mistake(
            PLUGIN,
            former,
            "nothing says where keys are made now: add another KeyManager block without previous",
        );
    }
    let current = one.map(|block| read_one(plugins, server, block));
    let former = before.map(|block| read_one(plugins, server, block));
    let (current, former) = (current??, former.map_or(Some(None), |former| former.map(Some))?);
    if let (KeyManagerConfig::Pkcs11(now), Some(KeyManagerConfig::Pkcs11(then))) = (&current, &former)
        && (&now.module_path, &now.token) == (&then.module_path, &then.token)
    {
        let reason =
            "names the token that keys are made in now: previous = true is for the one that the CA moves away from";
        plugins.plugin_mistake(PLUGIN, before?, reason);
    }
    match current {
        KeyManagerConfig::Pkcs11(_) => {}
        KeyManagerConfig::Disk(_) => one?.data.warn("keys_path", NOT_IN_HARDWARE),
        KeyManagerConfig::Memory => plugins.plugin_warn(PLUGIN, one?, NOT_IN_HARDWARE),
    }
    Some(KeyManagersConfig { current, former })
}

fn only_one<'a, 'b>(plugins: &Section<'_>, blocks: &[&'b Plugin<'a>], reason: &str) -> Option<&'b Plugin<'a>> {
    if let Some(second) = blocks.get(1) {
        plugins.plugin_mistake(PLUGIN, second, reason);
    }
    blocks.first().copied()
}

fn read_one(plugins: &Section<'_>, server: Option<&ServerBlock>, block: &Plugin<'_>) -> Option<KeyManagerConfig> {
    match block.name.as_str() {
        "pkcs11" => pkcs11::read(&block.data).map(Box::new).map(KeyManagerConfig::Pkcs11),
        "disk" => read_disk(&block.data, server).map(KeyManagerConfig::Disk),
        "memory" => {
            block.data.finish();
            Some(KeyManagerConfig::Memory)
        }
        _ => {
            let reason =
                format!("not supported by {PROGRAM} yet: use \"pkcs11\", or \"disk\" for moving over from SPIRE");
            plugins.plugin_mistake(PLUGIN, block, reason);
            None
        }
    }
}

fn read_disk(data: &Section<'_>, server: Option<&ServerBlock>) -> Option<PathBuf> {
    let hint = "give the file that holds the keys, such as keys_path = \"/var/lib/ironroot-server/keys.json\"";
    let path = data.required("keys_path", data.path("keys_path"), hint);
    if let (Some(path), Some(server)) = (&path, server) {
        data.look("keys_path", || look_at(path, &server.data_dir));
    }
    data.finish();
    path
}

/// The file can be read, and replaced.
fn look_at(path: &Path, data_dir: &Path) -> Result<(), String> {
    KeyFile::at(path).read().map_err(|error| describe(&error))?;
    places::usable_file(path, data_dir)
}
