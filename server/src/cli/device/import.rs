//! `device import`.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ironroot_api::command_line::{CommandError, Reply, code_name};
use ironroot_api::device::{NewDevice, parse_manifest};
use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::device::{ImportDevicesRequest, ImportDevicesResponse};
use serde_json::{Value, json};
use tonic::Code;

use super::MAX_ANSWER_BYTES;
use super::display::{describe, to_json};
use crate::cli::connection::Connection;
use crate::cli::messages;
use ironroot_api::command_line::counted;

/// Enrols the devices of a manifest: all of them, or none if one record is wrong.
#[derive(Debug, Args)]
#[command(after_help = "CSV has a head line; columns are ek_sha256 or ek_certificate, serial, and label:<name> for
each label. JSON is a list of objects with ek_sha256 or ek_certificate, serial and labels.
A device that is known already is updated.

  ek_sha256,serial,label:site
  5f1c...(64 digits),SN-0001,berlin

Example: ironroot-server device import devices.csv
Example: ironroot-server device import - < devices.json")]
pub(in crate::cli) struct Import {
    #[command(flatten)]
    connection: Connection,
    /// CSV or JSON; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Import {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let devices = self.read()?.iter().map(NewDevice::to_pb).collect();
            let mut client = DeviceClient::new(connection.open().await?)
                .max_encoding_message_size(MAX_ANSWER_BYTES)
                .max_decoding_message_size(MAX_ANSWER_BYTES);
            let response = client.import_devices(ImportDevicesRequest { devices }).await?;
            Ok(reply(&response.into_inner()))
        })
    }

    fn read(&self) -> Result<Vec<NewDevice>, CommandError> {
        let mut text = String::new();
        let read = match self.file == Path::new("-") {
            true => io::stdin().lock().read_to_string(&mut text).map(drop),
            false => fs::read_to_string(&self.file).map(|content| text = content),
        };
        read.map_err(|source| CommandError::File { doing: "read", path: self.file.clone(), source })?;
        let malformed = |error| CommandError::Malformed(format!("{}: {error}", self.file.display()));
        parse_manifest(&text).map_err(malformed)
    }
}

fn reply(response: &ImportDevicesResponse) -> Reply {
    let results: Vec<Value> = response
        .results
        .iter()
        .map(|result| messages::result(result.status.as_ref(), "device", result.device.as_ref().map(to_json)))
        .collect();
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
    reply
}
