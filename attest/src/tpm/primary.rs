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
    /// The parent of DevID keys of RSA.
    RsaStorageRoot,
}

impl Primary {
    pub fn hierarchy(self) -> KeyHierarchy {
        match self {
            Primary::Endorsement(_) => KeyHierarchy::Endorsement,
            Primary::StorageRoot | Primary::RsaStorageRoot => KeyHierarchy::Owner,
        }
    }

    pub fn template(self) -> Result<Public, TpmError> {
        match self {
            Primary::Endorsement(kind) => templates::endorsement_key(kind),
            Primary::StorageRoot => templates::storage_root_key(),
            Primary::RsaStorageRoot => templates::rsa_storage_root_key(),
        }
    }

    pub fn persistent_handle(self) -> u32 {
        match self {
            Primary::Endorsement(kind) => kind.persistent_handle(),
            Primary::StorageRoot | Primary::RsaStorageRoot => STORAGE_ROOT_HANDLE,
        }
    }
}

/// Whether `public` is what `template` makes: all is equal but the key itself.
pub fn is_of_template(public: &Public, template: &Public) -> bool {
    public.object_attributes() == template.object_attributes()
        && public.name_hashing_algorithm() == template.name_hashing_algorithm()
        && public.auth_policy() == template.auth_policy()
        && are_of_one_kind(public, template)
}

/// Whether the parameters are the same: those of RSA or ECC keys, since no template has others.
fn are_of_one_kind(public: &Public, template: &Public) -> bool {
    match (public, template) {
        (Public::Rsa { parameters, .. }, Public::Rsa { parameters: wanted, .. }) => parameters == wanted,
        (Public::Ecc { parameters, .. }, Public::Ecc { parameters: wanted, .. }) => parameters == wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_its_own_template_only() {
        let kinds = EndorsementKind::ALL.map(Primary::Endorsement);
        let all: Vec<Primary> = kinds.into_iter().chain([Primary::StorageRoot, Primary::RsaStorageRoot]).collect();
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
