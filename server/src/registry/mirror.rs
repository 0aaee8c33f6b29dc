//! The tables follow the change log.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::facts::agent::AgentRecord;
use crate::facts::entry::RegistrationEntry;
use ironroot_api::SpiffeId;

use super::agent_table::AgentTable;
use super::concerns::ParentHash;
use super::entry_table::EntryTable;
use super::{Memory, Tables};
use crate::store::{Changed, Facts, Follows, News, StoreError};

/// Takes entries and agents into memory for as long as there is a registry.
pub(super) fn follower(
    shared: &Arc<Memory>,
) -> impl FnMut(&Facts<'_>, &News) -> Result<Follows, StoreError> + Send + 'static {
    let shared = Arc::downgrade(shared);
    move |facts, news| {
        let Some(shared) = shared.upgrade() else { return Ok(Follows::Ended) };
        // Before the facts: they are no older than it.
        let revision = facts.revision()?;
        let mut parents = BTreeSet::new();
        match news {
            News::Everything => {
                let tables = everything(facts)?;
                shared.apply(|current| current.replace_by(tables));
            }
            News::Changes(changes) => {
                let rows = changes.iter().map(|changed| Row::read(facts, changed)).collect::<Result<Vec<_>, _>>()?;
                if rows.iter().any(|row| !matches!(row, Row::AnothersBusiness)) {
                    shared.apply(|tables| rows.into_iter().for_each(|row| row.put_into(tables, &mut parents)));
                }
            }
        }
        if concerns_others(news) {
            shared.changes.send_replace(revision);
        }
        if concerns_many(news) {
            shared.broad.send_replace(());
        }
        shared.concerns.wake(&parents);
        Ok(Follows::On)
    }
}

/// Whether agents besides those in `news` may get something else now. What is said of devices has been taken in before: the fleet
/// follows ahead of the registry.
fn concerns_others(news: &News) -> bool {
    concerns_many(news) || news.has(|changed| matches!(changed, Changed::Entry(_)))
}

/// The same, and whom is not known: of an entry it is.
fn concerns_many(news: &News) -> bool {
    news.has(|changed| matches!(changed, Changed::Device(_) | Changed::PcrPolicy(_)))
}

impl News {
    fn has(&self, is_meant: impl Fn(&Changed) -> bool) -> bool {
        match self {
            Self::Everything => true,
            Self::Changes(changes) => changes.iter().any(is_meant),
        }
    }
}

fn everything(facts: &Facts<'_>) -> Result<Tables, StoreError> {
    let mut entries = EntryTable::with_room(facts.trust_domain(), facts.count_entries()?);
    let mut agents = AgentTable::default();
    facts.each_entry(&mut |seq, entry| entries.put(seq, &entry))?;
    entries.shrink();
    facts.agents()?.into_iter().for_each(|(seq, agent)| agents.put(seq, agent));
    Ok(Tables { entries, agents })
}

/// What a row of the log is about, as it is now; None if it is gone.
enum Row {
    Entry(String, Option<(i64, RegistrationEntry)>),
    Agent(SpiffeId, Option<(i64, AgentRecord)>),
    AnothersBusiness,
}

impl Row {
    fn read(facts: &Facts<'_>, changed: &Changed) -> Result<Self, StoreError> {
        Ok(match changed {
            Changed::Entry(id) => Self::Entry(id.clone(), facts.entry(id)?),
            Changed::Agent(id) => Self::Agent(id.clone(), facts.agent(id)?),
            Changed::Device(_)
            | Changed::PcrPolicy(_)
            | Changed::CaJournal
            | Changed::Tiers
            | Changed::Bundle(_)
            | Changed::Relationship(_)
            | Changed::OlderState => Self::AnothersBusiness,
        })
    }

    /// `parents`: where entries came, went or are others.
    fn put_into(self, tables: &mut Tables, parents: &mut BTreeSet<ParentHash>) {
        match self {
            Self::Entry(id, Some((seq, entry))) => {
                parents.extend(tables.entries.parent_of(&id));
                tables.entries.put(seq, &entry);
                parents.extend(tables.entries.parent_of(&id));
            }
            Self::Entry(id, None) => {
                parents.extend(tables.entries.parent_of(&id));
                tables.entries.remove(&id);
            }
            Self::Agent(_, Some((seq, agent))) => tables.agents.put(seq, agent),
            Self::Agent(id, None) => tables.agents.remove(&id),
            Self::AnothersBusiness => {}
        }
    }
}
