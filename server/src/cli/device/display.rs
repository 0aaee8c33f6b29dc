//! A device for people and for programs.

mod boots;

use std::collections::BTreeMap;
use std::fmt::Display;

use ironroot_api::pb::device::ban::{Reason, Sighting};
use ironroot_api::pb::device::{Ban, DeviceRecord, DeviceState};
use ironroot_shell::command_line::{int64, labelled};
use serde_json::{Value, json};

use ironroot_api::spire_time;

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
    if !device.firmware_version.is_empty() {
        line(text, "TPM firmware", &device.firmware_version);
    }
    for fault in &device.weaknesses {
        line(text, "Known fault", fault);
    }
    for (name, value) in sorted(device) {
        line(text, "Label", format_args!("{name}={value}"));
    }
    line(text, "Created at", spire_time(device.created_at));
    if device.last_attested_at != 0 {
        line(text, "Last attested at", spire_time(device.last_attested_at));
    }
    if device.last_seen_at != 0 {
        line(text, "Last seen at", spire_time(device.last_seen_at));
    }
    if !device.agent_id.is_empty() {
        line(text, "Agent ID", &device.agent_id);
    }
    if device.boot_changed_at != 0 {
        line(text, "Boot changed at", spire_time(device.boot_changed_at));
    }
    if device.booted_otherwise {
        line(text, "Boot", "no policy allows it");
    }
    if device.suspected {
        line(text, "Suspected", "two machines seem to show its chip");
    }
    if let Some(ban) = &device.ban {
        describe_ban(text, ban);
    }
    device.boots.iter().for_each(|boot| boots::describe(text, boot));
    text.push('\n');
}

/// In the JSON form of protocol buffers.
pub(super) fn to_json(device: &DeviceRecord) -> Value {
    let mut json = json!({
        "ek_sha256": device.ek_sha256,
        "serial": device.serial,
        "labels": sorted(device),
        "state": state(device),
        "created_at": int64(device.created_at),
        "last_attested_at": int64(device.last_attested_at),
        "last_seen_at": int64(device.last_seen_at),
        "agent_id": device.agent_id,
        "manufacturer": device.manufacturer,
        "boot_changed_at": int64(device.boot_changed_at),
        "booted_otherwise": device.booted_otherwise,
        "suspected": device.suspected,
    });
    if let Some(ban) = &device.ban {
        json["ban"] = ban_to_json(ban);
    }
    if !device.firmware_version.is_empty() {
        json["firmware_version"] = device.firmware_version.as_str().into();
        json["weaknesses"] = device.weaknesses.as_slice().into();
    }
    if !device.boots.is_empty() {
        json["boots"] = device.boots.iter().map(boots::to_json).collect();
    }
    json
}

fn describe_ban(text: &mut String, ban: &Ban) {
    line(text, "Banned at", spire_time(ban.at));
    match ban.reason() {
        Reason::Administrator => line(text, "Banned by", &ban.by),
        Reason::RunsTwice => line(text, "Banned because", "its chip runs twice: one of two is a copy"),
        Reason::Unspecified => {}
    }
    for sighting in &ban.sightings {
        line(text, "Seen", format_args!("{} {} {}", spire_time(sighting.at), sighting.address, sighting.what));
    }
}

fn ban_to_json(ban: &Ban) -> Value {
    let reason = match ban.reason() {
        Reason::Administrator => "administrator",
        Reason::RunsTwice => "runs_twice",
        Reason::Unspecified => "unknown",
    };
    let sighting = |seen: &Sighting| json!({"at": int64(seen.at), "address": seen.address, "what": seen.what});
    let sightings: Vec<_> = ban.sightings.iter().map(sighting).collect();
    json!({"at": int64(ban.at), "reason": reason, "by": ban.by, "sightings": sightings})
}

fn sorted(device: &DeviceRecord) -> BTreeMap<&String, &String> {
    device.labels.iter().collect()
}

pub(super) fn state(device: &DeviceRecord) -> &'static str {
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
    labelled(text, 18, label, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banned_copy_is_shown_with_both_addresses_and_times_in_text_and_json() {
        let sighting = |at, address: &str, what: &str| Sighting { at, address: address.into(), what: what.into() };
        let sightings = vec![sighting(60, "10.0.0.1:40", "did this"), sighting(120, "10.0.0.2:50", "did that")];
        let ban = Ban { at: 121, reason: Reason::RunsTwice.into(), by: String::new(), sightings };
        let device = DeviceRecord { ban: Some(ban), ..DeviceRecord::default() };
        let mut text = String::new();
        describe(&mut text, &device);
        for said in [
            "Banned at         : 1970-01-01 00:02:01",
            "Banned because    : its chip runs twice",
            "Seen              : 1970-01-01 00:01:00",
            "10.0.0.1:40 did this\n",
            "10.0.0.2:50 did that\n",
        ] {
            assert!(text.contains(said), "{said}\n{text}");
        }
        let json = to_json(&device)["ban"].clone();
        assert_eq!((&json["reason"], &json["at"]), (&json!("runs_twice"), &json!("121")));
        assert_eq!(json["sightings"][1], json!({"at": "120", "address": "10.0.0.2:50", "what": "did that"}));
    }
}
