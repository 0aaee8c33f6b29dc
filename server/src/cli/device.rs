//! `device import`, `list`, `show`, `approve`, `set`, `label`, `replace`, `ban`, `delete`, `export`: the fleet. Ours; SPIRE has no counterpart.

mod change;
mod decide;
mod display;
mod export;
mod import;
pub mod manifest;
mod named;
mod replace;

use std::collections::HashMap;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Subcommand};
use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::device::{DeviceRecord, DeviceState, ListDevicesRequest};
use ironroot_shell::command_line::{CommandError, Reply};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::connection::Connection;
use crate::devices::{NewDeviceError, check_label, check_serial};
use display::{describe, state, to_json};
use ironroot_api::utc;
use ironroot_shell::command_line::{counted, table};
pub(super) use named::resolve;

/// Devices asked for at once.
const PAGE_SIZE: i32 = 1000;
/// Longest answer accepted, bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Device {
    Import(import::Import),
    List(List),
    Show(decide::Show),
    Approve(decide::Approve),
    Set(change::Set),
    Label(change::Label),
    Replace(replace::Replace),
    Ban(decide::Ban),
    Delete(decide::Delete),
    Export(export::Export),
}

impl Device {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::Import(import) => import.execute(),
            Self::List(list) => list.execute(),
            Self::Show(show) => show.execute(),
            Self::Approve(approve) => approve.execute(),
            Self::Set(set) => set.execute(),
            Self::Label(label) => label.execute(),
            Self::Replace(replace) => replace.execute(),
            Self::Ban(ban) => ban.execute(),
            Self::Delete(delete) => delete.execute(),
            Self::Export(export) => export.execute(),
        }
    }
}

/// Lists devices.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server device list -state pending
Example: ironroot-server device list -label site=berlin -output json")]
pub(super) struct List {
    #[command(flatten)]
    connection: Connection,
    /// Only those that are pending, enrolled or banned
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
    /// Only those with this label, as name=value; repeat for more
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<Label>,
}

#[derive(Clone, Copy, Debug)]
struct State(DeviceState);

impl FromStr for State {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "pending" => Ok(Self(DeviceState::Pending)),
            "enrolled" => Ok(Self(DeviceState::Enrolled)),
            "banned" => Ok(Self(DeviceState::Banned)),
            _ => Err("use pending, enrolled or banned"),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Label(pub(super) String, pub(super) String);

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("write name=value")?;
        check_label(name, value).map_err(|why| why.to_string())?;
        Ok(Self(name.to_owned(), value.to_owned()))
    }
}

/// A serial as a device may have it.
pub(super) fn serial(text: &str) -> Result<String, NewDeviceError> {
    check_serial(text).map(|()| text.to_owned())
}

impl List {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let by_labels: HashMap<String, String> =
                self.label.iter().map(|Label(name, value)| (name.clone(), value.clone())).collect();
            let state = self.state.map_or(DeviceState::Unspecified, |State(state)| state);
            let request = ListDevicesRequest {
                by_state: state.into(),
                by_labels,
                page_size: PAGE_SIZE,
                ..ListDevicesRequest::default()
            };
            let devices = list(connection.open().await?, request).await?;
            let mut text = format!("Found {}\n", counted(devices.len(), "device", "devices"));
            devices.iter().for_each(|device| describe(&mut text, device));
            let json = json!({ "devices": devices.iter().map(to_json).collect::<Value>(), "next_page_token": "" });
            Ok(Reply {
                table: Some(table(&HEAD, &devices.iter().map(row).collect::<Vec<_>>())),
                ..Reply::new(json, text)
            })
        })
    }
}

/// What a table of devices has.
const HEAD: [&str; 5] = ["SERIAL", "STATE", "HASH", "LAST ATTESTED", "LABELS"];
/// Digits of a hash that a table has: enough to name any device of a fleet.
const SHOWN_DIGITS: usize = 12;

fn row(device: &DeviceRecord) -> [String; 5] {
    let digits = device.ek_sha256.chars().take(SHOWN_DIGITS).collect();
    let attested = if device.last_attested_at == 0 { "never".to_owned() } else { utc(device.last_attested_at) };
    let mut labels: Vec<String> = device.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.sort();
    [device.serial.clone(), state(device).to_owned(), digits, attested, labels.join(" ")]
}

async fn list(channel: Channel, mut request: ListDevicesRequest) -> Result<Vec<DeviceRecord>, CommandError> {
    let mut client = DeviceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let mut devices = Vec::new();
    loop {
        let page = client.list_devices(request.clone()).await?.into_inner();
        devices.extend(page.devices);
        if page.next_page_token.is_empty() {
            return Ok(devices);
        }
        request.page_token = page.next_page_token;
    }
}
