//! The table follows the change log.

use std::sync::{Arc, RwLock};

use ironroot_shell::telemetry::Counter;
use tokio::time::Instant;

use super::contradiction::Suspicion;
use super::table::Table;
use crate::facts::device::KnownDevice;
use crate::facts::pcr_policy::PcrPolicy;
use crate::store::{Changed, Facts, Follows, News, StoreError};

/// Takes devices into `table` for as long as somebody looks at it, and counts those that have booted something else.
pub(super) fn follower(
    table: &Arc<RwLock<Table>>,
    boots_changed: Arc<Counter>,
) -> impl FnMut(&Facts<'_>, &News) -> Result<Follows, StoreError> + Send + 'static {
    let table = Arc::downgrade(table);
    move |facts, news| {
        let Some(table) = table.upgrade() else { return Ok(Follows::Ended) };
        match news {
            News::Everything => {
                let mut all: Table = facts.devices()?.into_iter().collect();
                let from_before = |(ek, contradiction)| (ek, Suspicion { contradiction, seen: None });
                all.suspicions.extend(facts.contradictions()?.into_iter().map(from_before));
                let by_name = |policy: PcrPolicy| (policy.name.clone(), Arc::new(policy));
                all.policies.extend(facts.pcr_policies()?.into_iter().map(by_name));
                *table.write().expect("no code panics while it holds the table") = all;
            }
            News::Changes(changes) => {
                let rows = changes.iter().filter_map(|changed| read(facts, changed)).collect::<Result<Vec<_>, _>>()?;
                let mut table = table.write().expect("no code panics while it holds the table");
                rows.into_iter().for_each(|row| row.put_into(&mut table, &boots_changed));
            }
        }
        Ok(Follows::On)
    }
}

/// What there is now; None for what there is not.
enum Row {
    Device(DeviceRow),
    Policy(String, Option<PcrPolicy>),
}

struct DeviceRow {
    ek_sha256: [u8; 32],
    device: Option<KnownDevice>,
    suspicion: Option<Suspicion>,
}

/// None for what is neither a device nor a policy.
fn read(facts: &Facts<'_>, changed: &Changed) -> Option<Result<Row, StoreError>> {
    match changed {
        Changed::Device(ek_sha256) => Some(DeviceRow::read(facts, *ek_sha256).map(Row::Device)),
        Changed::PcrPolicy(name) => Some(facts.pcr_policy(name).map(|policy| Row::Policy(name.clone(), policy))),
        Changed::Entry(_)
        | Changed::Agent(_)
        | Changed::CaJournal
        | Changed::Tiers
        | Changed::Bundle(_)
        | Changed::Relationship(_)
        | Changed::OlderState => None,
    }
}

impl Row {
    fn put_into(self, table: &mut Table, boots_changed: &Counter) {
        match self {
            Self::Device(row) => {
                if row.has_booted_something_else(table) {
                    boots_changed.one_more();
                }
                row.put_into(table);
            }
            Self::Policy(name, Some(policy)) => drop(table.policies.insert(name, Arc::new(policy))),
            Self::Policy(name, None) => drop(table.policies.remove(&name)),
        }
    }
}

impl DeviceRow {
    fn read(facts: &Facts<'_>, ek_sha256: [u8; 32]) -> Result<Self, StoreError> {
        let now = |contradiction| Suspicion { contradiction, seen: Some(Instant::now()) };
        let (device, contradiction) = (facts.device(&ek_sha256)?, facts.contradiction(&ek_sha256)?);
        Ok(Self { ek_sha256, device, suspicion: contradiction.map(now) })
    }

    fn has_booted_something_else(&self, table: &Table) -> bool {
        let before = table.get(&self.ek_sha256).and_then(|known| known.boot.as_ref());
        let now = self.device.as_ref().and_then(|known| known.boot.as_ref());
        before.zip(now).is_some_and(|(before, now)| !before.is_same_state(now))
    }

    fn put_into(self, table: &mut Table) {
        let before = table.suspicions.get(&self.ek_sha256).cloned();
        table.remove(&self.ek_sha256);
        if let Some(device) = self.device {
            table.put(device);
            // What was known before was seen then.
            let known = before.filter(|before| self.suspicion.as_ref().is_some_and(|now| now.is_of(before)));
            table.suspicions.extend(known.or(self.suspicion).map(|suspicion| (self.ek_sha256, suspicion)));
        }
    }
}
