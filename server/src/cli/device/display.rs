//! A device for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use ironroot_api::command_line::int64;
use ironroot_api::pb::device::{DeviceRecord, DeviceState};
use serde_json::{Value, json};

use ironroot_api::command_line::utc;

/// Appends `device` and an empty line.
pub(super) fn describe(text: &mut String, device: &DeviceRecord) {
    line(text, "EK SHA-256", &device.ek_sha256);
    line(text, "State", state(device));
    if !device.serial.is_empty() {
        line(text, "Serial", &device.serial);
    }
    if !device.manufacturer.is_empty() {
        line(text, "Manufacturer", manufacturer(&device.manufacturer));
    }
    for (name, value) in sorted(device) {
        line(text, "Label", format_args!("{name}={value}"));
    }
    line(text, "Created at", utc(device.created_at));
    if device.last_attested_at != 0 {
        line(text, "Last attested at", utc(device.last_attested_at));
    }
    if !device.agent_id.is_empty() {
        line(text, "Agent ID", &device.agent_id);
    }
    text.push('\n');
}

/// In the JSON form of protocol buffers.
pub(super) fn to_json(device: &DeviceRecord) -> Value {
    json!({
        "ek_sha256": device.ek_sha256,
        "serial": device.serial,
        "labels": sorted(device),
        "state": state(device),
        "created_at": int64(device.created_at),
        "last_attested_at": int64(device.last_attested_at),
        "agent_id": device.agent_id,
        "manufacturer": device.manufacturer,
    })
}

fn sorted(device: &DeviceRecord) -> BTreeMap<&String, &String> {
    device.labels.iter().collect()
}

fn state(device: &DeviceRecord) -> &'static str {
    match device.state() {
        DeviceState::Unspecified => "unknown",
        DeviceState::Pending => "pending",
        DeviceState::Enrolled => "enrolled",
        DeviceState::Banned => "banned",
    }
}

/// The ID with its owner's name. Source: TCG TPM Vendor ID Registry, version 1.07.
fn manufacturer(id: &str) -> String {
    let name = match id {
        "AMD" => "AMD",
        "ATML" => "Atmel",
        "BRCM" => "Broadcom",
        "CSCO" => "Cisco",
        "FLYS" => "Flyslice",
        "GOOG" => "Google",
        "HISI" => "Huawei",
        "HPE" => "Hewlett Packard Enterprise",
        "HPI" => "HP",
        "IBM" => "IBM",
        "00001014" => "IBM, as the software TPM swtpm says",
        "IFX" => "Infineon",
        "INTC" => "Intel",
        "LEN" => "Lenovo",
        "MSFT" => "Microsoft",
        "NSM" => "National Semiconductor",
        "NTC" => "Nuvoton",
        "NTZ" => "Nationz",
        "QCOM" => "Qualcomm",
        "ROCC" => "Fuzhou Rockchip",
        "SMSC" => "SMSC",
        "SMSN" => "Samsung",
        "SNS" => "Sinosun",
        "STM" => "STMicroelectronics",
        "TXN" => "Texas Instruments",
        "WEC" => "Winbond",
        _ => return id.to_owned(),
    };
    if name == id { id.to_owned() } else { format!("{id} ({name})") }
}

fn line(text: &mut String, label: &str, value: impl Display) {
    writeln!(text, "{label:<18}: {value}").expect("writing to a string cannot fail");
}
