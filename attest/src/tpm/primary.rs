//! The primary keys that an agent works with.

use tss_esapi::structures::Public;

use super::endorsement_kind::EndorsementKind;
use super::error::TpmError;
use super::hierarchy::KeyHierarchy;
use super::templates;

/// Where a persistent storage root key is (Provisioning Guidance §7.8).
const STORAGE_ROOT_HANDLE: u32 = 0x8100_0001;

/// A primary key that an agent works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Primary {
    Endorsement(EndorsementKind),
    StorageRoot,
}

impl Primary {
    pub fn hierarchy(self) -> KeyHierarchy {
        match self {
            Primary::Endorsement(_) => KeyHierarchy::Endorsement,
            Primary::StorageRoot => KeyHierarchy::Owner,
        }
    }

    pub fn template(self) -> Result<Public, TpmError> {
        match self {
            Primary::Endorsement(kind) => templates::endorsement_key(kind),
            Primary::StorageRoot => templates::storage_root_key(),
        }
    }

    pub fn persistent_handle(self) -> u32 {
        match self {
            Primary::Endorsement(kind) => kind.persistent_handle(),
            Primary::StorageRoot => STORAGE_ROOT_HANDLE,
        }
    }
}

/// Whether `public` is what `template` makes: all is equal but the key itself.
pub fn is_of_template(public: &Public, template: &Public) -> bool {
    match (public, template) {
        (
            Public::Rsa { object_attributes, name_hashing_algorithm, auth_policy, parameters, .. },
            Public::Rsa {
                object_attributes: attributes,
                name_hashing_algorithm: hash,
                auth_policy: policy,
                parameters: wanted,
                ..
            },
        ) => {
            object_attributes == attributes
                && name_hashing_algorithm == hash
                && auth_policy == policy
                && parameters == wanted
        }
        (
            Public::Ecc { object_attributes, name_hashing_algorithm, auth_policy, parameters, .. },
            Public::Ecc {
                object_attributes: attributes,
                name_hashing_algorithm: hash,
                auth_policy: policy,
                parameters: wanted,
                ..
            },
        ) => {
            object_attributes == attributes
                && name_hashing_algorithm == hash
                && auth_policy == policy
                && parameters == wanted
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_its_own_template_only() {
        let kinds = EndorsementKind::ALL.map(Primary::Endorsement);
        let all: Vec<Primary> = kinds.into_iter().chain([Primary::StorageRoot]).collect();
        for a in &all {
            for b in &all {
                let (one, other) = (a.template().expect("template"), b.template().expect("template"));
                assert_eq!(is_of_template(&one, &other), a == b, "{a:?} {b:?}");
            }
        }
        assert!(!is_of_template(
            &templates::signing_key().expect("template"),
            &templates::storage_root_key().expect("template")
        ));
    }
}
