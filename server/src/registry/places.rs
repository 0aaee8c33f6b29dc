//! Room below a parent: as many entries as an agent takes in one answer, and no more, however many are on their way to the disk.

use std::sync::Arc;

use ironroot_api::SpiffeId;

use super::{MAX_ENTRIES_PER_PARENT, Memory, RegistryError};

/// The right to put one entry below a parent. It is given back when it is dropped: by then the entry counts, or is not there.
#[derive(Debug)]
#[must_use]
pub(super) struct Place {
    shared: Arc<Memory>,
    parent: SpiffeId,
}

impl Place {
    /// Takes one of the places below `parent`. Below `server` there are any number: those are groups of devices, of which an
    /// agent gets none.
    pub fn below(shared: &Arc<Memory>, parent: &SpiffeId, server: &SpiffeId) -> Result<Option<Self>, RegistryError> {
        if parent == server {
            return Ok(None);
        }
        let mut places = shared.places.lock().expect("no code panics while it holds the places");
        // Counted while no place is given back: an entry counts as stored or as under way at any time, never as neither.
        let stored = shared.read().entries.count_children(parent);
        if stored + places.get(parent).copied().unwrap_or(0) >= MAX_ENTRIES_PER_PARENT {
            return Err(RegistryError::ParentFull { parent: parent.clone() });
        }
        *places.entry(parent.clone()).or_default() += 1;
        Ok(Some(Self { shared: shared.clone(), parent: parent.clone() }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.shared.places.lock().expect("no code panics while it holds the places");
        if let Some(under_way) = places.get_mut(&self.parent) {
            *under_way -= 1;
            if *under_way == 0 {
                places.remove(&self.parent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, RwLock};
    use std::thread;
    use std::time::{Duration, Instant};

    use ironroot_api::TrustDomain;
    use tokio::sync::watch;

    use super::super::Tables;
    use super::super::agent_table::AgentTable;
    use super::super::entry_table::EntryTable;
    use super::*;

    #[test]
    fn no_place_is_given_back_between_counting_what_is_stored_and_what_is_under_way() {
        let trust_domain = TrustDomain::new("td").expect("legal");
        let (server, parent) = (trust_domain.server_id(), trust_domain.id_with_path("/parent").expect("legal"));
        let tables = Tables { entries: EntryTable::new(&trust_domain), agents: AgentTable::default() };
        let (tables, changes) = (RwLock::new(tables), watch::Sender::new(0));
        let shared = Arc::new(Memory { tables, places: Mutex::default(), changes });
        // It waits where it counts the entries.
        let applying = shared.tables.write().expect("no panic");
        let (memory, of) = (shared.clone(), parent.clone());
        let asking = thread::spawn(move || Place::below(&memory, &of, &server).map(drop));
        let deadline = Instant::now() + Duration::from_secs(10);
        while shared.places.try_lock().is_ok() {
            assert!(Instant::now() < deadline, "places can be given back while it counts");
            thread::yield_now();
        }
        drop(applying);
        asking.join().expect("no panic").expect("there is room");
    }
}
