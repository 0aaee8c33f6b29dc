//! The table follows the change log.

use std::sync::{Arc, RwLock};

use tokio::time::Instant;

use super::contradiction::Suspicion;
use super::table::Table;
use crate::facts::device::KnownDevice;
use crate::store::{Changed, Facts, Follows, News, StoreError};

/// Takes devices into `table` for as long as somebody looks at it.
pub(super) fn follower(
    table: &Arc<RwLock<Table>>,
) -> impl FnMut(&Facts<'_>, &News) -> Result<Follows, StoreError> + Send + 'static {
    let table = Arc::downgrade(table);
    move |facts, news| {
        let Some(table) = table.upgrade() else { return Ok(Follows::Ended) };
        match news {
            News::Everything => {
                let mut all: Table = facts.devices()?.into_iter().collect();
                let from_before = |(ek, contradiction)| (ek, Suspicion { contradiction, seen: None });
                all.suspicions.extend(facts.contradictions()?.into_iter().map(from_before));
                *table.write().expect("no code panics while it holds the table") = all;
            }
            News::Changes(changes) => {
                let rows = changes.iter().filter_map(|changed| read(facts, changed)).collect::<Result<Vec<_>, _>>()?;
                let mut table = table.write().expect("no code panics while it holds the table");
                rows.into_iter().for_each(|row| row.put_into(&mut table));
            }
        }
        Ok(Follows::On)
    }
}

/// A device as it is now; None for what there is not.
struct Row {
    ek_sha256: [u8; 32],
    device: Option<KnownDevice>,
    suspicion: Option<Suspicion>,
}

/// None for what is no device.
fn read(facts: &Facts<'_>, changed: &Changed) -> Option<Result<Row, StoreError>> {
    let Changed::Device(ek_sha256) = *changed else { return None };
    let device = facts.device(&ek_sha256);
    let now = |contradiction| Suspicion { contradiction, seen: Some(Instant::now()) };
    let row = |device| Ok(Row { ek_sha256, device, suspicion: facts.contradiction(&ek_sha256)?.map(now) });
    Some(device.and_then(row))
}

impl Row {
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
