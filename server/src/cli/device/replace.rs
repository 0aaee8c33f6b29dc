//! `device replace`: a new board in the place of an old one.

use std::collections::HashMap;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::device::{DeviceRecord, DeviceRequest, ImportDevicesRequest, NewDevice};
use ironroot_shell::command_line::{CommandError, Reply};
use serde_json::json;

use super::display::{describe, to_json};
use super::named::resolve;
use crate::cli::connection::Connection;

/// Puts a new board in the place of an old one: it gets the old one's serial and labels, and the old one is banned.
#[derive(Debug, Args)]
#[command(
    after_help = "One change gives the serial and labels to the new device and takes them from the old one: no two devices ever have one serial. \
        Then the old device is banned, and the agent that attested with it. The new one may be unknown still (give its whole hash), wait for \
        approval, or be enrolled without a serial. Its agent has an ID of its own: entries by serial, label or node alias go on, entries whose \
        parent is the old agent's ID do not.

Example: ironroot-server device replace SN-0001 5f1c2a"
)]
pub(in crate::cli) struct Replace {
    #[command(flatten)]
    connection: Connection,
    /// The old board: serial, hash, or the hash's first digits
    #[arg(value_name = "OLD")]
    old: String,
    /// The new board, likewise
    #[arg(value_name = "NEW")]
    new: String,
}

impl Replace {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let channel = connection.open().await?;
            let names = [self.old.clone(), self.new.clone()];
            let hashes = resolve(channel.clone(), &names).await?;
            let [old, new] = hashes.as_slice() else {
                return Err(CommandError::Usage(format!("{} and {} are one device", self.old, self.new)));
            };
            let mut client = DeviceClient::new(channel);
            let before = client.get_device(DeviceRequest { ek_sha256: old.clone() }).await?.into_inner();
            let devices = moved(&before, new);
            let imported =
                client.import_devices(ImportDevicesRequest { devices, ..ImportDevicesRequest::default() }).await?;
            let results = imported.into_inner().results.into_iter();
            let replaced = results.filter_map(|result| result.device).find(|device| device.ek_sha256 == *new);
            let banned = client.ban_device(DeviceRequest { ek_sha256: old.clone() }).await?.into_inner();
            let replaced =
                replaced.ok_or_else(|| CommandError::Malformed("the server does not say what it did".to_owned()))?;
            let mut text = format!("{old} is replaced, and banned\n\n");
            describe(&mut text, &replaced);
            Ok(Reply::new(json!({ "old": to_json(&banned), "new": to_json(&replaced) }), text))
        })
    }
}

/// The old device without what it had, and the new one with it: both or neither.
fn moved(before: &DeviceRecord, new: &str) -> Vec<NewDevice> {
    let without: HashMap<_, _> = before.labels.keys().map(|name| (name.clone(), String::new())).collect();
    let device = |ek_sha256: &str, serial: &str, labels| NewDevice {
        ek_sha256: ek_sha256.to_owned(),
        serial: Some(serial.to_owned()),
        labels,
        ..NewDevice::default()
    };
    vec![device(&before.ek_sha256, "", without), device(new, &before.serial, before.labels.clone())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_new_board_gets_the_old_one_loses() {
        let before = DeviceRecord {
            ek_sha256: "aa".into(),
            serial: "SN-1".into(),
            labels: [("site".to_owned(), "berlin".to_owned())].into(),
            ..DeviceRecord::default()
        };
        let changes = moved(&before, "bb");
        assert_eq!((changes[0].serial.as_deref(), changes[0].labels["site"].as_str()), (Some(""), ""));
        assert_eq!((changes[1].serial.as_deref(), changes[1].labels["site"].as_str()), (Some("SN-1"), "berlin"));
        assert_eq!(changes[1].ek_sha256, "bb");
    }
}
