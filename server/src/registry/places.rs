//! Room below a parent: as many entries as an agent takes in one answer, and no more, however many are on their way to the disk.
//!
//! It is judged where changes are decided, one after the other, in the order in which they were queued: memory has what is
//! committed, and here is what the changes before did since.

use std::sync::Arc;

use ironroot_api::SpiffeId;

use super::{MAX_ENTRIES_PER_PARENT, Memory, RegistryError};

/// An entry that a change puts below a parent, or takes away from there. It is dropped when memory has the change, or when the
/// change has failed.
#[derive(Debug)]
#[must_use]
pub(super) struct Place {
    shared: Arc<Memory>,
    parent: SpiffeId,
    /// 1 or -1.
    entries: isize,
}

impl Place {
    /// One more entry below `parent`, if there is room. Below the server there is always: those are groups of devices, of which an
    /// agent gets none.
    pub fn below(shared: &Arc<Memory>, parent: &SpiffeId) -> Result<Self, RegistryError> {
        let mut places = shared.places.lock().expect("no code panics while it holds the places");
        // Counted while no place is given back: an entry counts as stored or as under way at any time, never as neither.
        let stored = shared.read().entries.count_children(parent);
        let all = stored.saturating_add_signed(places.get(parent).copied().unwrap_or(0));
        if all >= MAX_ENTRIES_PER_PARENT && *parent != parent.trust_domain().server_id() {
            return Err(RegistryError::ParentFull { parent: parent.clone() });
        }
        *places.entry(parent.clone()).or_default() += 1;
        Ok(Self { shared: shared.clone(), parent: parent.clone(), entries: 1 })
    }

    /// An entry that goes from below one parent to below another: the new one must have room, and the old one has more at once.
    /// None if it stays where it is.
    pub fn moved(shared: &Arc<Memory>, from: &SpiffeId, to: &SpiffeId) -> Result<Option<[Self; 2]>, RegistryError> {
        if from == to {
            return Ok(None);
        }
        Ok(Some([Self::below(shared, to)?, Self::left(shared, from)]))
    }

    fn left(shared: &Arc<Memory>, parent: &SpiffeId) -> Self {
        let mut places = shared.places.lock().expect("no code panics while it holds the places");
        *places.entry(parent.clone()).or_default() -= 1;
        Self { shared: shared.clone(), parent: parent.clone(), entries: -1 }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.shared.places.lock().expect("no code panics while it holds the places");
        let under_way = places.entry(self.parent.clone()).or_default();
        *under_way -= self.entries;
        if *under_way == 0 {
            places.remove(&self.parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use ironroot_api::TrustDomain;

    use super::super::Tables;
    use super::super::agent_table::AgentTable;
    use super::super::entry_table::EntryTable;
    use super::*;

    #[test]
    fn no_place_is_given_back_between_counting_what_is_stored_and_what_is_under_way() {
        let trust_domain = TrustDomain::new("td").expect("legal");
        let parent = trust_domain.id_with_path("/parent").expect("legal");
        let tables = Tables { entries: EntryTable::new(&trust_domain), agents: AgentTable::default() };
        let shared = Arc::new(Memory::new(tables));
        // It waits where it counts the entries.
        let applying = shared.tables.write().expect("no panic");
        let (memory, of) = (shared.clone(), parent.clone());
        let asking = thread::spawn(move || Place::below(&memory, &of).map(drop));
        let deadline = Instant::now() + Duration::from_secs(10);
        while shared.places.try_lock().is_ok() {
            assert!(Instant::now() < deadline, "places can be given back while it counts");
            thread::yield_now();
        }
        drop(applying);
        asking.join().expect("no panic").expect("there is room");
    }
}
