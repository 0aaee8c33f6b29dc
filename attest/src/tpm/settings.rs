//! What an operator says about the TPM.

use std::fmt;
use std::time::Duration;

use tss_esapi::structures::Auth;
use zeroize::Zeroizing;

use super::address::TpmAddress;
use super::endorsement_kind::{EndorsementChoice, RememberedEndorsement};
use super::error::TpmError;
use super::hierarchy::KeyHierarchy;
use crate::node::tpm2::PcrHash;

/// Longest password of a hierarchy, bytes: the longest digest (Part 1 §19.6.4.3).
pub const MAX_PASSWORD_BYTES: usize = 64;

/// How long a software TPM may take for one command before its connection is closed under it. A kernel device needs no
/// such limit: the driver has its own. Software makes the slowest key within seconds.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(120);

/// Where the TPM is and how to work with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmSettings {
    /// A device file, or a software TPM's socket.
    pub address: TpmAddress,
    /// Which endorsement key.
    pub endorsement: EndorsementChoice,
    /// The endorsement key that this device is known by.
    pub remembered: Option<RememberedEndorsement>,
    /// Password of the owner hierarchy. Needed to make the storage root key (unless it is persistent) and the counter.
    pub owner_password: HierarchyPassword,
    /// Password of the endorsement hierarchy. Needed for each use of the endorsement key.
    pub endorsement_password: HierarchyPassword,
    /// The PCR bank that secrets are sealed to; none: the first of [`PcrHash::ALL`] that is active, but never SHA-1.
    pub sealing_bank: Option<PcrHash>,
    /// See [`COMMAND_DEADLINE`].
    pub command_deadline: Duration,
}

impl TpmSettings {
    /// The password of `hierarchy`.
    pub(super) fn password(&self, hierarchy: KeyHierarchy) -> &HierarchyPassword {
        match hierarchy {
            KeyHierarchy::Owner => &self.owner_password,
            KeyHierarchy::Endorsement => &self.endorsement_password,
        }
    }
}

impl From<TpmAddress> for TpmSettings {
    /// The chip as most are: no passwords, the endorsement key that the maker certified.
    fn from(address: TpmAddress) -> Self {
        Self {
            address,
            endorsement: EndorsementChoice::Auto,
            remembered: None,
            owner_password: HierarchyPassword::default(),
            endorsement_password: HierarchyPassword::default(),
            sealing_bank: None,
            command_deadline: COMMAND_DEADLINE,
        }
    }
}

/// The password of a hierarchy, or of a key; empty unless somebody has set one. Wiped when dropped, never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HierarchyPassword(Zeroizing<Vec<u8>>);

impl HierarchyPassword {
    /// From bytes, at most [`MAX_PASSWORD_BYTES`]. Trailing zero bytes are cut off, as the TPM does (Part 1 §19.6.4.3).
    pub fn new(mut bytes: Zeroizing<Vec<u8>>) -> Result<Self, TpmError> {
        if bytes.len() > MAX_PASSWORD_BYTES {
            return Err(TpmError::Argument("a password has at most 64 bytes"));
        }
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(Self(bytes))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the library takes it.
    pub(super) fn to_auth(&self) -> Result<Auth, TpmError> {
        Auth::try_from(self.0.as_slice()).map_err(|error| TpmError::of("Esys_TR_SetAuth", error))
    }
}

impl fmt::Debug for HierarchyPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HierarchyPassword(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_bounded_and_never_printed() {
        let password = HierarchyPassword::new(Zeroizing::new(b"hunter2\0\0".to_vec())).expect("short");
        assert_eq!(password.to_auth().expect("short").value(), b"hunter2");
        assert!(!format!("{password:?}").contains("hunter2"));
        assert!(HierarchyPassword::new(Zeroizing::new(vec![1; MAX_PASSWORD_BYTES])).is_ok());
        assert!(HierarchyPassword::new(Zeroizing::new(vec![1; MAX_PASSWORD_BYTES + 1])).is_err());
    }
}
