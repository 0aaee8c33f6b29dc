//! `policy learn`: from a device whose last boot is known to be good.

use std::process::ExitCode;

use std::path::PathBuf;

use clap::Args;
use ironroot_api::pb::pcr_policy as pb;
use ironroot_shell::command_line::CommandError;

use super::{client, reply};
use crate::cli::connection::Connection;
use crate::cli::device::{Label, resolve};

mod files;

/// Adds what a device has booted to a policy, which is made if it is not there.
#[derive(Debug, Args)]
#[command(
    after_help = "A firmware update, without a device that stands outside meanwhile: update one device and let it attest,
learn from it (old and new state are good now), update the others, and learn again with -replace.

With -imaList the files that the device has measured are allowed, too. The list is the device's own, copied from it; as many of its entries
are learnt as the server has proven by the device's quote (ima_log in server.conf), and a list that does not lead there is refused.

Example: ironroot-server policy learn -device SN-0001 -name gateway
Example: ironroot-server policy learn -device SN-0001 -name gateway -imaList binary_runtime_measurements
Example: ironroot-server policy learn -device SN-0001 -name gateway -pcrs 0,2,4,7 -label model=gw -note \"firmware 1.2\""
)]
pub(in crate::cli) struct Learn {
    #[command(flatten)]
    connection: Connection,
    /// The device: serial, or SHA-256 of the endorsement key or its first digits
    #[arg(long, value_name = "DEVICE")]
    device: String,
    /// The policy's name; devices that meet it have the selector tpm2:policy:NAME
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The registers, as 0,2,4,7; without it all that were quoted, but not 1, 5, 6 and 10
    #[arg(long, value_name = "PCRS", value_delimiter = ',')]
    pcrs: Vec<u32>,
    /// Only devices with this label can meet it, as name=value; repeat for more
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<Label>,
    /// What is to be known of this state, such as the firmware's version
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// The device's list of measured files (/sys/kernel/security/ima/binary_runtime_measurements): allow these files, too
    #[arg(long = "imaList", value_name = "PATH")]
    ima_list: Option<PathBuf>,
    /// This state alone is good from now on
    #[arg(long)]
    replace: bool,
}

impl Learn {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let channel = connection.open().await?;
            let devices = resolve(channel.clone(), std::slice::from_ref(&self.device)).await?;
            let Some(ek_sha256) = devices.into_iter().next() else {
                return Err(CommandError::Usage(format!("{:?} names no device", self.device)));
            };
            let files = match &self.ima_list {
                Some(path) => files::proven(path, channel.clone(), &ek_sha256).await?,
                None => Vec::new(),
            };
            let request = pb::LearnPolicyRequest {
                ek_sha256,
                name: self.name.clone(),
                pcrs: self.pcrs.clone(),
                labels: self.label.iter().map(|Label(name, value)| (name.clone(), value.clone())).collect(),
                note: self.note.clone(),
                replace: self.replace,
                files,
            };
            Ok(reply(&client(channel).learn_policy(request).await?.into_inner()))
        })
    }
}
