//! The table follows the change log.

use std::sync::{Arc, RwLock};

use super::Contradiction;
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
                all.contradictions.extend(facts.contradictions()?);
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
    contradiction: Option<Contradiction>,
}

/// None for what is no device.
fn read(facts: &Facts<'_>, changed: &Changed) -> Option<Result<Row, StoreError>> {
    let Changed::Device(ek_sha256) = *changed else { return None };
    let device = facts.device(&ek_sha256);
    let row = |device| Ok(Row { ek_sha256, device, contradiction: facts.contradiction(&ek_sha256)? });
    Some(device.and_then(row))
}

impl Row {
    fn put_into(self, table: &mut Table) {
        table.remove(&self.ek_sha256);
        if let Some(device) = self.device {
            table.put(device);
            table.contradictions.extend(self.contradiction.map(|seen| (self.ek_sha256, seen)));
        }
    }
}
