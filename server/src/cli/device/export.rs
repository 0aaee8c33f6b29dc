//! `device export`: the fleet as a manifest, which `device import` takes.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::device::{DeviceRecord, DeviceState, ListDevicesRequest};
use ironroot_shell::command_line::{CommandError, Reply};
use serde_json::{Value, json};

use super::{Label, PAGE_SIZE, list};
use crate::cli::connection::Connection;

/// Prints enrolled devices as a manifest, which "device import" takes.
#[derive(Debug, Args)]
#[command(
    after_help = "CSV, or with -output json the same as JSON. Bans and what devices have booted are not in it: a backup has those.

Example: ironroot-server device export > devices.csv
Example: ironroot-server device export -label site=berlin"
)]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    connection: Connection,
    /// Only those with this label, as name=value; repeat for more
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<Label>,
}

impl Export {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let by_labels = self.label.iter().map(|Label(name, value)| (name.clone(), value.clone())).collect();
            let by_state = DeviceState::Enrolled.into();
            let request =
                ListDevicesRequest { by_state, by_labels, page_size: PAGE_SIZE, ..ListDevicesRequest::default() };
            let devices = list(connection.open().await?, request).await?;
            let json = json!({ "devices": devices.iter().map(to_json).collect::<Value>() });
            Ok(Reply::new(json, to_csv(&devices)?))
        })
    }
}

fn to_json(device: &DeviceRecord) -> Value {
    json!({ "ek_sha256": device.ek_sha256, "serial": device.serial, "labels": device.labels })
}

/// A column for each label that any of them has.
fn to_csv(devices: &[DeviceRecord]) -> Result<String, CommandError> {
    let labels: BTreeSet<&String> = devices.iter().flat_map(|device| device.labels.keys()).collect();
    let mut csv = csv::Writer::from_writer(Vec::new());
    let head = ["ek_sha256".to_owned(), "serial".to_owned()].into_iter();
    csv.write_record(head.chain(labels.iter().map(|name| format!("label:{name}")))).map_err(CommandError::run)?;
    for device in devices {
        let values = labels.iter().map(|name| device.labels.get(*name).map_or("", String::as_str));
        csv.write_record([device.ek_sha256.as_str(), &device.serial].into_iter().chain(values))
            .map_err(CommandError::run)?;
    }
    let bytes = csv.into_inner().map_err(|error| CommandError::run(error.into_error()))?;
    String::from_utf8(bytes).map_err(CommandError::run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::device::manifest::parse_manifest;

    #[test]
    fn what_is_exported_is_a_manifest() {
        let device = |digit: &str, serial: &str, labels: &[(&str, &str)]| DeviceRecord {
            ek_sha256: digit.repeat(64),
            serial: serial.to_owned(),
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..DeviceRecord::default()
        };
        let csv = to_csv(&[device("a", "SN,1", &[("site", "berlin \"mitte\"")]), device("b", "", &[("ring", "1")])])
            .expect("text");
        assert!(csv.starts_with("ek_sha256,serial,label:ring,label:site\n"), "{csv}");
        let again = parse_manifest(&csv).expect("a manifest");
        assert_eq!((again.len(), again[0].serial()), (2, Some("SN,1")));
        assert_eq!(again[0].labels()["site"], "berlin \"mitte\"");
    }
}
