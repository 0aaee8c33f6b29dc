//! `device import`, `list`, `show`, `approve`, `ban`, `delete`: the fleet. Ours; SPIRE has no counterpart.

mod display;
mod import;

use std::collections::HashMap;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Subcommand};
use ironroot_api::command_line::{CommandError, Reply};
use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::device::{DeviceRecord, DeviceRequest, DeviceState, ListDevicesRequest};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::connection::Connection;
use display::{describe, to_json};
use ironroot_api::command_line::counted;

/// Devices asked for at once.
const PAGE_SIZE: i32 = 1000;
/// Longest answer accepted, bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Device {
    Import(import::Import),
    List(List),
    Show(Show),
    Approve(Approve),
    Ban(Ban),
    Delete(Delete),
}

impl Device {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::Import(import) => import.execute(),
            Self::List(list) => list.execute(),
            Self::Show(show) => show.execute(),
            Self::Approve(approve) => approve.execute(),
            Self::Ban(ban) => ban.execute(),
            Self::Delete(delete) => delete.execute(),
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
struct Label(String, String);

impl FromStr for Label {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("write name=value")?;
        Ok(Self(name.to_owned(), value.to_owned()))
    }
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
                page_token: String::new(),
            };
            let devices = list(connection.open().await?, request).await?;
            let mut text = format!("Found {}\n", counted(devices.len(), "device", "devices"));
            devices.iter().for_each(|device| describe(&mut text, device));
            let json = json!({ "devices": devices.iter().map(to_json).collect::<Value>(), "next_page_token": "" });
            Ok(Reply::new(json, text))
        })
    }
}

/// Names one device.
#[derive(Debug, Args)]
struct Named {
    #[command(flatten)]
    connection: Connection,
    /// SHA-256 of its endorsement key, 64 hexadecimal digits, as "device list" shows it
    #[arg(value_name = "EK_SHA256", value_parser = ek_sha256)]
    ek_sha256: String,
}

impl Named {
    fn request(&self) -> DeviceRequest {
        DeviceRequest { ek_sha256: self.ek_sha256.clone() }
    }

    fn reply(device: &DeviceRecord) -> Reply {
        let mut text = String::new();
        describe(&mut text, device);
        Reply::new(to_json(device), text)
    }
}

/// Shows one device.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server device show 5f1c2a...")]
pub(super) struct Show {
    #[command(flatten)]
    device: Named,
}

impl Show {
    fn execute(self) -> ExitCode {
        self.device.connection.run(async |connection| {
            let device = DeviceClient::new(connection.open().await?).get_device(self.device.request()).await?;
            Ok(Named::reply(&device.into_inner()))
        })
    }
}

/// Lets a pending device attest. A banned one stays banned until it is deleted and imported again.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server device approve 5f1c2a...")]
pub(super) struct Approve {
    #[command(flatten)]
    device: Named,
}

impl Approve {
    fn execute(self) -> ExitCode {
        self.device.connection.run(async |connection| {
            let device = DeviceClient::new(connection.open().await?).approve_device(self.device.request()).await?;
            Ok(Named::reply(&device.into_inner()))
        })
    }
}

/// Turns a device away, and the agent that attested with it.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server device ban 5f1c2a...")]
pub(super) struct Ban {
    #[command(flatten)]
    device: Named,
}

impl Ban {
    fn execute(self) -> ExitCode {
        self.device.connection.run(async |connection| {
            let device = DeviceClient::new(connection.open().await?).ban_device(self.device.request()).await?;
            Ok(Named::reply(&device.into_inner()))
        })
    }
}

/// Forgets a device.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server device delete 5f1c2a...")]
pub(super) struct Delete {
    #[command(flatten)]
    device: Named,
}

impl Delete {
    fn execute(self) -> ExitCode {
        self.device.connection.run(async |connection| {
            DeviceClient::new(connection.open().await?).delete_device(self.device.request()).await?;
            Ok(Reply::new(json!({}), "Device deleted successfully\n"))
        })
    }
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

fn ek_sha256(text: &str) -> Result<String, &'static str> {
    let hash = ironroot_api::device::parse_hex(text).ok_or("not 64 hexadecimal digits")?;
    Ok(ironroot_api::device::hex(&hash))
}
