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
    for (label, value) in [("Serial", &device.serial), ("Manufacturer", &device.manufacturer)] {
        if !value.is_empty() {
            line(text, label, value);
        }
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
        "state": DeviceState::try_from(device.state).unwrap_or_default().as_str_name(),
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

fn line(text: &mut String, label: &str, value: impl Display) {
    writeln!(text, "{label:<18}: {value}").expect("writing to a string cannot fail");
}
