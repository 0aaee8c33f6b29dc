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
        let stored = shared.read().entries.count_children(parent);
        let mut places = shared.places.lock().expect("no code panics while it holds the places");
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
