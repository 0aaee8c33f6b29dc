//! `device set`, `device label`: what the operator says of devices that are known.

use std::collections::HashMap;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::device::{DeviceRecord, DeviceRequest, DeviceState, ImportDevicesRequest, NewDevice};
use ironroot_shell::command_line::CommandError;
use tonic::transport::Channel;

use super::named::Named;

/// Gives a device another serial.
#[derive(Debug, Args)]
#[command(after_help = "An empty serial removes it. Entries that select by serial follow at once.

Example: ironroot-server device set 5f1c2a -serial SN-0001")]
pub(in crate::cli) struct Set {
    #[command(flatten)]
    devices: Named,
    /// The serial it gets
    #[arg(long, value_name = "SERIAL", value_parser = super::serial)]
    serial: String,
}

impl Set {
    pub(super) fn execute(self) -> ExitCode {
        self.devices.connection.run(async |connection| {
            let channel = connection.open().await?;
            let hashes = self.devices.resolve(channel.clone()).await?;
            let [ek_sha256] = hashes.as_slice() else {
                return Err(CommandError::Usage("-serial can be given to one device only".to_owned()));
            };
            let change =
                NewDevice { ek_sha256: ek_sha256.clone(), serial: Some(self.serial.clone()), ..NewDevice::default() };
            Ok(self.devices.reply(&apply(channel, vec![change]).await?))
        })
    }
}

/// Changes labels of devices: of all that are named, or of none.
#[derive(Debug, Args)]
#[command(
    after_help = "-set site=berlin gives a label, -set site= takes it away; labels that are not named stay. Entries that select by label follow \
        at once, without another attestation.

Example: ironroot-server device label SN-0001 SN-0002 -set site=berlin -set ring="
)]
pub(in crate::cli) struct Label {
    #[command(flatten)]
    devices: Named,
    /// A label, as name=value; name= takes it away; repeat for more
    #[arg(long = "set", value_name = "NAME=VALUE", required = true)]
    labels: Vec<super::Label>,
}

impl Label {
    pub(super) fn execute(self) -> ExitCode {
        self.devices.connection.run(async |connection| {
            let channel = connection.open().await?;
            let hashes = self.devices.resolve(channel.clone()).await?;
            let labels: HashMap<_, _> =
                self.labels.iter().map(|super::Label(name, value)| (name.clone(), value.clone())).collect();
            let changes = hashes.into_iter();
            let changes =
                changes.map(|ek_sha256| NewDevice { ek_sha256, labels: labels.clone(), ..NewDevice::default() });
            Ok(self.devices.reply(&apply(channel, changes.collect()).await?))
        })
    }
}

/// All of the changes, or none; of enrolled devices only, since what is imported may attest.
async fn apply(channel: Channel, devices: Vec<NewDevice>) -> Result<Vec<DeviceRecord>, CommandError> {
    let mut client = DeviceClient::new(channel);
    for device in &devices {
        let known = client.get_device(DeviceRequest { ek_sha256: device.ek_sha256.clone() }).await?.into_inner();
        if known.state() == DeviceState::Pending {
            let name = &device.ek_sha256;
            return Err(CommandError::Usage(format!(
                "device {name} waits for approval: ironroot-server device approve {name} -serial SERIAL -label name=value"
            )));
        }
    }
    let request = ImportDevicesRequest { devices, known_only: true, ..ImportDevicesRequest::default() };
    let results = client.import_devices(request).await?.into_inner().results;
    Ok(results.into_iter().filter_map(|result| result.device).collect())
}
