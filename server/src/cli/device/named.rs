//! The devices that a command line means: by serial, by hash, by the first digits of a hash.

use crate::devices::{MIN_PREFIX_DIGITS, names};
use clap::Args;
use ironroot_api::pb::device::{DeviceRecord, ListDevicesRequest};
use ironroot_shell::command_line::{CommandError, Reply};
use ironroot_text::hex::{hex, parse_hex};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::display::{describe, to_json};
use super::{PAGE_SIZE, list};
use crate::cli::connection::Connection;

/// Most devices that an ambiguous name is said to mean.
const MAX_CANDIDATES: usize = 5;

/// Names devices.
#[derive(Debug, Args)]
pub(super) struct Named {
    #[command(flatten)]
    pub connection: Connection,
    /// Serial, or SHA-256 of the endorsement key or its first digits (six or more), as "device list" shows it
    #[arg(value_name = "DEVICE", required = true, value_parser = name)]
    pub names: Vec<String>,
}

impl Named {
    /// The hashes of all devices named, in the order of the names, each once. A name that is a whole hash is taken as it is;
    /// each other one must mean exactly one device.
    pub(super) async fn resolve(&self, channel: Channel) -> Result<Vec<String>, CommandError> {
        resolve(channel, &self.names).await
    }

    /// One device as ever; several as a list.
    pub(super) fn reply(&self, devices: &[DeviceRecord]) -> Reply {
        let mut text = String::new();
        devices.iter().for_each(|device| describe(&mut text, device));
        let json = match devices {
            [only] if self.names.len() == 1 => to_json(only),
            all => json!({ "devices": all.iter().map(to_json).collect::<Value>() }),
        };
        Reply::new(json, text)
    }
}

/// The hashes of all devices named, as [`Named::resolve`] gives them.
pub(in crate::cli) async fn resolve(channel: Channel, names: &[String]) -> Result<Vec<String>, CommandError> {
    let open: Vec<String> = names.iter().filter(|name| parse_hex(name).is_none()).cloned().collect();
    let known = if open.is_empty() { Vec::new() } else { candidates(channel, open).await? };
    let mut hashes = Vec::new();
    for name in names {
        let hash = match parse_hex(name) {
            Some(hash) => hex(&hash),
            None => the_one(name, &known)?,
        };
        if !hashes.contains(&hash) {
            hashes.push(hash);
        }
    }
    Ok(hashes)
}

async fn candidates(channel: Channel, by_names: Vec<String>) -> Result<Vec<DeviceRecord>, CommandError> {
    list(channel, ListDevicesRequest { by_names, page_size: PAGE_SIZE, ..ListDevicesRequest::default() }).await
}

fn the_one(name: &str, known: &[DeviceRecord]) -> Result<String, CommandError> {
    let meant: Vec<&DeviceRecord> = known.iter().filter(|d| names(name, &d.ek_sha256, &d.serial)).collect();
    match meant.as_slice() {
        [only] => Ok(only.ek_sha256.clone()),
        [] => {
            let advice = "give its serial or digits of its hash, as \"device list\" shows them";
            Err(CommandError::Usage(format!("{name:?} names no device: {advice}")))
        }
        several => {
            let shown: Vec<&str> = several.iter().take(MAX_CANDIDATES).map(|device| &*device.ek_sha256).collect();
            let (count, shown) = (several.len(), shown.join(", "));
            Err(CommandError::Usage(format!("{name:?} names {count} devices: give more digits of one of {shown}")))
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() {
        return Err(format!("give a serial, or at least {MIN_PREFIX_DIGITS} digits of a hash"));
    }
    Ok(name.to_owned())
}
