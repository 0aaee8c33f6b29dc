//! `device show`, `approve`, `ban`, `delete`: one device, or several at once.

use std::process::ExitCode;

use crate::devices::NewDevice;
use clap::Args;
use ironroot_api::pb::device as pb;
use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::device::{DeviceRecord, DeviceRequest, ImportDevicesRequest};
use ironroot_shell::command_line::{CommandError, Reply, counted};
use serde_json::json;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::named::Named;

/// Shows devices.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server device show SN-0001
Example: ironroot-server device show 5f1c2a")]
pub(in crate::cli) struct Show {
    #[command(flatten)]
    devices: Named,
}

impl Show {
    pub(super) fn execute(self) -> ExitCode {
        each(&self.devices, async |mut client, request| client.get_device(request).await)
    }
}

/// Lets pending devices attest. A banned one stays so until it is deleted, its agent evicted, and it is imported again.
#[derive(Debug, Args)]
#[command(
    after_help = "With -serial and -label the device gets selectors at once, as an import would give it: all devices
named are approved, or none.

Example: ironroot-server device approve 5f1c2a
Example: ironroot-server device approve 5f1c2a -serial SN-0001 -label site=berlin"
)]
pub(in crate::cli) struct Approve {
    #[command(flatten)]
    devices: Named,
    /// The serial it gets; only with one device
    #[arg(long, value_name = "SERIAL", value_parser = super::serial)]
    serial: Option<String>,
    /// A label it gets, as name=value; repeat for more
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<super::Label>,
}

impl Approve {
    pub(super) fn execute(self) -> ExitCode {
        if self.serial.is_none() && self.label.is_empty() {
            return each(&self.devices, async |mut client, request| client.approve_device(request).await);
        }
        self.devices.connection.run(async |connection| {
            let channel = connection.open().await?;
            let hashes = self.devices.resolve(channel.clone()).await?;
            if self.serial.is_some() && hashes.len() != 1 {
                return Err(CommandError::Usage("-serial can be given to one device only".to_owned()));
            }
            let described = hashes.iter().map(|hash| self.described(hash)).collect::<Result<_, _>>()?;
            Ok(self.devices.reply(&enrol(DeviceClient::new(channel), described).await?))
        })
    }

    fn described(&self, ek_sha256: &str) -> Result<pb::NewDevice, CommandError> {
        let ek_sha256 = ek_sha256.to_owned();
        let labels = self.label.iter().map(|super::Label(name, value)| (name.clone(), value.clone())).collect();
        let device = pb::NewDevice { ek_sha256, serial: self.serial.clone(), labels, ..pb::NewDevice::default() };
        let wrong = |mistakes: Vec<_>| {
            let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            CommandError::Usage(mistakes.join("; "))
        };
        Ok(NewDevice::from_pb(&device).map_err(wrong)?.to_pb())
    }
}

/// One import enrols them all, or refuses them all: it looks at them where it changes them.
async fn enrol(
    mut client: DeviceClient<Channel>,
    devices: Vec<pb::NewDevice>,
) -> Result<Vec<DeviceRecord>, CommandError> {
    let request = ImportDevicesRequest { devices, known_only: true, ..ImportDevicesRequest::default() };
    let results = client.import_devices(request).await?.into_inner().results;
    Ok(results.into_iter().filter_map(|result| result.device).collect())
}

/// Turns devices away, and the agents that attested with them.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server device ban SN-0001 SN-0002")]
pub(in crate::cli) struct Ban {
    #[command(flatten)]
    devices: Named,
}

impl Ban {
    pub(super) fn execute(self) -> ExitCode {
        each(&self.devices, async |mut client, request| client.ban_device(request).await)
    }
}

/// Forgets devices.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server device delete SN-0001")]
pub(in crate::cli) struct Delete {
    #[command(flatten)]
    devices: Named,
}

impl Delete {
    pub(super) fn execute(self) -> ExitCode {
        self.devices.connection.run(async |connection| {
            let channel = connection.open().await?;
            let hashes = self.devices.resolve(channel.clone()).await?;
            let mut client = DeviceClient::new(channel);
            let deleted = hashes.len();
            for ek_sha256 in hashes {
                let outcome = client.delete_device(DeviceRequest { ek_sha256: ek_sha256.clone() }).await;
                outcome.map_err(|status| about(&ek_sha256, deleted, status))?;
            }
            let text = match deleted {
                1 => "Device deleted successfully\n".to_owned(),
                _ => format!("Deleted {} successfully\n", counted(deleted, "device", "devices")),
            };
            Ok(Reply::new(json!({}), text))
        })
    }
}

/// Resolves all names before the first device is touched, then asks the server about each.
fn each(
    named: &Named,
    ask: impl AsyncFn(DeviceClient<Channel>, DeviceRequest) -> Result<Response<DeviceRecord>, Status>,
) -> ExitCode {
    named.connection.run(async |connection| {
        let channel = connection.open().await?;
        let hashes = named.resolve(channel.clone()).await?;
        let mut devices = Vec::new();
        for ek_sha256 in &hashes {
            let request = DeviceRequest { ek_sha256: ek_sha256.clone() };
            let answer = ask(DeviceClient::new(channel.clone()), request).await;
            devices.push(answer.map_err(|status| about(ek_sha256, hashes.len(), status))?.into_inner());
        }
        Ok(named.reply(&devices))
    })
}

/// Of several devices the one that was refused is named.
fn about(ek_sha256: &str, of: usize, status: Status) -> CommandError {
    if of < 2 {
        return status.into();
    }
    Status::new(status.code(), format!("device {ek_sha256}: {}", status.message())).into()
}
