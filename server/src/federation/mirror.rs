//! The table follows the change log.

use std::sync::Arc;

use ironroot_api::TrustDomain;
use ironroot_api::bundle::Bundle;

use super::Memory;
use super::table::Table;
use crate::facts::federation::FederationRelationship;
use crate::store::{Changed, Facts, Follows, News, StoreError};

/// Takes bundles and relationships into `memory` for as long as somebody looks at it.
pub(super) fn follower(
    memory: &Arc<Memory>,
) -> impl FnMut(&Facts<'_>, &News) -> Result<Follows, StoreError> + Send + 'static {
    let memory = Arc::downgrade(memory);
    move |facts, news| {
        let Some(memory) = memory.upgrade() else { return Ok(Follows::Ended) };
        match news {
            News::Everything => {
                let all = everything(facts)?;
                memory.apply(|table| *table = all);
            }
            News::Changes(changes) => {
                let rows = changes.iter().filter_map(|changed| read(facts, changed));
                let rows = rows.collect::<Result<Vec<_>, _>>()?;
                if rows.is_empty() {
                    return Ok(Follows::On);
                }
                memory.apply(|table| rows.into_iter().for_each(|row| row.put_into(table)));
            }
        }
        memory.changes.send_replace(());
        Ok(Follows::On)
    }
}

impl Memory {
    fn apply(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.table.write().expect("no code panics while it holds the table"));
    }
}

fn everything(facts: &Facts<'_>) -> Result<Table, StoreError> {
    let mut table = Table::default();
    for (seq, bundle) in facts.federated_bundles()? {
        table.bundles.put(bundle.trust_domain().clone(), Some((seq, bundle)));
    }
    for (seq, relationship) in facts.relationships()? {
        table.relationships.put(relationship.trust_domain.clone(), Some((seq, relationship)));
    }
    Ok(table)
}

/// What a row of the log is about, as it is now; None in it if it is gone.
enum Row {
    Bundle(TrustDomain, Option<(i64, Bundle)>),
    Relationship(TrustDomain, Option<(i64, FederationRelationship)>),
}

/// None for what is another room's business.
fn read(facts: &Facts<'_>, changed: &Changed) -> Option<Result<Row, StoreError>> {
    match changed {
        Changed::Bundle(td) => Some(facts.federated_bundle(td).map(|row| Row::Bundle(td.clone(), row))),
        Changed::Relationship(td) => Some(facts.relationship(td).map(|row| Row::Relationship(td.clone(), row))),
        _ => None,
    }
}

impl Row {
    fn put_into(self, table: &mut Table) {
        match self {
            Self::Bundle(trust_domain, row) => table.bundles.put(trust_domain, row),
            Self::Relationship(trust_domain, row) => table.relationships.put(trust_domain, row),
        }
    }
}
