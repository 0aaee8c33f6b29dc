//! `device import`.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::manifest::parse_manifest;
use crate::devices::NewDevice;
use crate::endpoints::policy::MAX_BATCH_BYTES;
use clap::Args;
use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::device::import_devices_response::Result as ImportResult;
use ironroot_api::pb::device::{ImportDevicesRequest, ImportDevicesResponse};
use ironroot_shell::command_line::{CommandError, Reply, code_name, shown};
use ironroot_text::HumanFile;
use prost::Message;
use serde_json::{Value, json};
use tonic::Code;

use super::MAX_ANSWER_BYTES;
use super::display::{describe, to_json};
use crate::cli::connection::Connection;
use crate::cli::messages;
use ironroot_shell::command_line::counted;

/// Largest manifest accepted, bytes: as many devices as one may hold, each with a certificate.
const MAX_MANIFEST_BYTES: usize = 256 * 1024 * 1024;
/// Most changed devices shown to people; -output json has them all.
const MAX_SHOWN: usize = 100;

/// Enrols the devices of a manifest: all of them, or none if one record is wrong.
#[derive(Debug, Args)]
#[command(
    after_help = "CSV has a head line; columns are ek_sha256 or ek_certificate, serial, and label:<name> for each label; \
        semicolons and tabs separate as well as commas. JSON is a list of objects with ek_sha256 or ek_certificate, serial and labels. \
        A certificate is PEM, or DER in base64 or in hexadecimal digits. Of a device that is known already, what is named is updated: \
        a missing column leaves what is there, an empty cell removes it.

  ek_sha256,serial,label:site
  5f1c...(64 digits),SN-0001,berlin

Example: ironroot-server device import devices.csv
Example: ironroot-server device import - < devices.json"
)]
pub(in crate::cli) struct Import {
    #[command(flatten)]
    connection: Connection,
    /// CSV or JSON; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Let several devices have one serial: entries that select by it then cover them all
    #[arg(long = "allowDuplicateSerials")]
    allow_duplicate_serials: bool,
}

impl Import {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let devices = self.read()?.iter().map(NewDevice::to_pb).collect();
            let mut client = DeviceClient::new(connection.open().await?)
                .max_encoding_message_size(MAX_ANSWER_BYTES)
                .max_decoding_message_size(MAX_ANSWER_BYTES);
            let allow_duplicate_serials = self.allow_duplicate_serials;
            let request = ImportDevicesRequest { devices, allow_duplicate_serials, known_only: false };
            refuse_too_large(&request)?;
            let response = client.import_devices(request).await?;
            Ok(reply(&response.into_inner()))
        })
    }

    fn read(&self) -> Result<Vec<NewDevice>, CommandError> {
        let file = HumanFile::argument(&self.file, MAX_MANIFEST_BYTES)?;
        let malformed = |error| CommandError::Malformed(format!("{}: {error}", file.name()));
        parse_manifest(file.text()).map_err(malformed)
    }
}

/// The server would read none of it.
fn refuse_too_large(request: &ImportDevicesRequest) -> Result<(), CommandError> {
    let (bytes, most) = (request.encoded_len(), MAX_BATCH_BYTES);
    if bytes <= most {
        return Ok(());
    }
    Err(CommandError::Malformed(format!(
        "the manifest makes {bytes} bytes, and one import takes {most}: split it, or give hashes instead of certificates"
    )))
}

fn reply(response: &ImportDevicesResponse) -> Reply {
    let results: Vec<Value> = response.results.iter().map(to_result).collect();
    let json = json!({ "results": results, "created": response.created, "updated": response.updated });
    let mut reply = Reply::new(json, "");
    let mut taken: u32 = 0;
    for (index, result) in response.results.iter().enumerate() {
        let status = result.status.clone().unwrap_or_default();
        if status.code == Code::Ok as i32 {
            taken += 1;
            continue;
        }
        let (code, message) = (code_name(Code::from(status.code)), status.message);
        reply.complaints.push_str(&format!("Failed to import device {} (code: {code}, msg: {message:?})\n", index + 1));
        result.device.iter().for_each(|device| describe(&mut reply.complaints, device));
    }
    reply.failed = !reply.complaints.is_empty();
    let unchanged = i64::from(taken) - i64::from(response.created) - i64::from(response.updated);
    reply.text = format!(
        "Imported {}: {} created, {} updated, {} unchanged\n",
        counted(taken as usize, "device", "devices"),
        response.created,
        response.updated,
        unchanged.max(0),
    );
    reply.text.push_str(&changed(&response.results));
    reply
}

fn to_result(result: &ImportResult) -> Value {
    let mut json = messages::result(result.status.as_ref(), "device", result.device.as_ref().map(to_json));
    json["changes"] = result.changes.clone().into();
    json
}

/// One line for each device of which something changed, or that is banned.
fn changed(results: &[ImportResult]) -> String {
    let with_changes = results.iter().filter(|result| !result.changes.is_empty());
    let (mut text, mut left) = (String::new(), 0);
    for (number, result) in with_changes.enumerate() {
        if number >= MAX_SHOWN {
            left += 1;
            continue;
        }
        let device = result.device.clone().unwrap_or_default();
        let serial = if device.serial.is_empty() { String::new() } else { format!(" ({})", device.serial) };
        let said = format!("{}{serial}: {}", device.ek_sha256, result.changes.join("; "));
        writeln!(text, "  {}", shown(said)).expect("writing to a string cannot fail");
    }
    if left > 0 {
        text.push_str(&format!("  and {} more; -output json shows all\n", counted(left, "device", "devices")));
    }
    text
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::device::NewDevice;

    use super::*;

    #[test]
    fn a_manifest_that_no_import_takes_is_refused_with_what_to_do() {
        let devices = |count| {
            let device = NewDevice { ek_certificate: vec![0; 1_500].into(), ..NewDevice::default() };
            ImportDevicesRequest { devices: vec![device; count], ..ImportDevicesRequest::default() }
        };
        assert!(refuse_too_large(&devices(10_000)).is_ok());
        let refused = refuse_too_large(&devices(12_000)).expect_err("18 MB");
        assert!(refused.to_string().contains("split it, or give hashes"), "{refused}");
    }
}
