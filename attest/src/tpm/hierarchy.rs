//! The hierarchies of the chip's keys.

use std::fmt;

use tss_esapi::handles::ObjectHandle;
use tss_esapi::interface_types::resource_handles::Hierarchy;

/// A hierarchy that an agent works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHierarchy {
    /// Of the machine's owner: storage root key, counter.
    Owner,
    /// Of the maker's endorsement keys.
    Endorsement,
}

impl KeyHierarchy {
    pub(super) fn esys(self) -> Hierarchy {
        match self {
            KeyHierarchy::Owner => Hierarchy::Owner,
            KeyHierarchy::Endorsement => Hierarchy::Endorsement,
        }
    }

    pub(super) fn handle(self) -> ObjectHandle {
        match self {
            KeyHierarchy::Owner => ObjectHandle::Owner,
            KeyHierarchy::Endorsement => ObjectHandle::Endorsement,
        }
    }
}

impl fmt::Display for KeyHierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyHierarchy::Owner => "owner",
            KeyHierarchy::Endorsement => "endorsement",
        })
    }
}
