//! One import under way: what each record of a manifest makes of the device that is known.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::devices::NewDevice;
use crate::facts::device::{DeviceRecord, DeviceState};
use ironroot_text::hex::hex;

use super::DeviceError;
use super::change::unknown;
use crate::facts::device::KnownDevice;
use crate::store::Transaction;

/// Most duplicate serials that one refusal names.
const MAX_NAMED: usize = 20;

/// Whether an import may give several devices one serial: an entry that selects by it then covers them all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DuplicateSerials {
    /// It is refused as a whole.
    #[default]
    Refused,
    /// The operator said so.
    Allowed,
}

#[derive(Default)]
pub(super) struct Import {
    pub all: Vec<KnownDevice>,
    pub changes: Vec<Vec<String>>,
    pub created: usize,
    pub updated: usize,
    /// The devices that came to have another serial than before.
    renamed: BTreeSet<[u8; 32]>,
}

impl Import {
    pub(super) fn take(&mut self, tx: &Transaction<'_>, device: &NewDevice, now_unix: i64) -> Result<(), DeviceError> {
        let known = tx.device(&device.ek_sha256())?;
        let before = known.as_ref().map(|known| &*known.record);
        let after = wanted(device, before, now_unix)?;
        if !after.serial.is_empty() && before.is_none_or(|before| before.serial != after.serial) {
            self.renamed.insert(after.ek_sha256);
        }
        self.changes.push(before.map(|before| changes(before, &after)).unwrap_or_default());
        self.all.push(match known {
            Some(known) if *known.record == after => known,
            known => {
                *(if known.is_some() { &mut self.updated } else { &mut self.created }) += 1;
                let (clock, boot, boot_changed_at) =
                    known.map_or_else(Default::default, |known| (known.clock, known.boot, known.boot_changed_at));
                KnownDevice {
                    seq: tx.put_device(&after, clock)?,
                    record: Arc::new(after),
                    clock,
                    boot,
                    boot_changed_at,
                }
            }
        });
        Ok(())
    }

    /// Looks at the whole registry once, after all records are in: two devices may have exchanged their serials.
    pub(super) fn refuse_new_duplicates(&self, tx: &Transaction<'_>) -> Result<(), DeviceError> {
        if self.renamed.is_empty() {
            return Ok(());
        }
        let mut holders: HashMap<String, Vec<[u8; 32]>> = HashMap::new();
        for (serial, ek_sha256) in tx.device_serials()? {
            holders.entry(serial).or_default().push(ek_sha256);
        }
        holders.retain(|_, holders| holders.len() > 1 && holders.iter().any(|ek| self.renamed.contains(ek)));
        if holders.is_empty() {
            return Ok(());
        }
        let mut named: Vec<String> = holders.iter().map(|(serial, eks)| duplicate(serial, eks)).collect();
        named.sort();
        named.truncate(MAX_NAMED);
        Err(DeviceError::DuplicateSerials { count: holders.len(), named: named.join("; ") })
    }
}

fn duplicate(serial: &str, holders: &[[u8; 32]]) -> String {
    let holders: Vec<String> = holders.iter().take(3).map(hex).collect();
    format!("{serial:?} of {}", holders.join(" and "))
}

/// The device as the manifest wants it.
fn wanted(device: &NewDevice, known: Option<&DeviceRecord>, now_unix: i64) -> Result<DeviceRecord, DeviceError> {
    let base = known.cloned().unwrap_or_else(|| unknown(device.ek_sha256(), DeviceState::Pending, now_unix));
    Ok(DeviceRecord {
        serial: device.serial().map(str::to_owned).unwrap_or(base.serial),
        labels: device.labels_over(base.labels)?,
        state: if base.state == DeviceState::Banned { DeviceState::Banned } else { DeviceState::Enrolled },
        manufacturer: device.manufacturer().unwrap_or(base.manufacturer),
        ..base
    })
}

/// What is different, one sentence each.
fn changes(before: &DeviceRecord, after: &DeviceRecord) -> Vec<String> {
    let mut changes = Vec::new();
    let mut changed = |what: &str, before: Option<&String>, after: Option<&String>| match (before, after) {
        (before, after) if before == after => {}
        (Some(before), Some(after)) => changes.push(format!("{what} {before} -> {after}")),
        (None, Some(after)) => changes.push(format!("{what} {after} added")),
        (Some(before), None) => changes.push(format!("{what} {before} removed")),
        (None, None) => {}
    };
    changed("serial", filled(&before.serial), filled(&after.serial));
    changed("manufacturer", filled(&before.manufacturer), filled(&after.manufacturer));
    for name in before.labels.keys().chain(after.labels.keys()).collect::<BTreeSet<_>>() {
        changed(&format!("label {name}"), before.labels.get(name), after.labels.get(name));
    }
    if before.state != after.state {
        changes.push("enrolled: it waited for approval".to_owned());
    }
    if after.state == DeviceState::Banned {
        changes.push(
            "banned, and stays so: delete it, evict its agent if it had one, and import it again to let it attest"
                .to_owned(),
        );
    }
    changes
}

fn filled(text: &String) -> Option<&String> {
    Some(text).filter(|text| !text.is_empty())
}
