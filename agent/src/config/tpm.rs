//! What `NodeAttestor "tpm2"` and `KeyManager "tpm"` say of the TPM.

use std::path::PathBuf;

use ironroot_attest::tpm::{EndorsementChoice, EndorsementKind, HierarchyPassword, KeyHierarchy, TpmAddress};
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::Section;
use zeroize::Zeroizing;

use super::password::PasswordSource;
use crate::node_attestation::{default_ima_list, default_paths};

/// The TPM behind the kernel's resource manager, where it is on every Linux device.
pub(crate) const DEFAULT_TPM: &str = "/dev/tpmrm0";

/// The TPM and how to work with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmConfig {
    /// The device file, or a simulator.
    pub address: TpmAddress,
    /// RSA or P-256 or P-384; by itself the agent takes the one with a certificate and remembers it.
    pub endorsement: EndorsementChoice,
    /// Password of the owner hierarchy.
    pub owner_password: PasswordSource,
    /// Password of the endorsement hierarchy.
    pub endorsement_password: PasswordSource,
    /// Where the firmware's log of what it measured may be, the best place first; nowhere if it is not to be looked for.
    pub event_log: Vec<PathBuf>,
    /// Where the kernel's list of the files that it measured is (IMA); nowhere if it is not to be looked for.
    pub ima_log: Option<PathBuf>,
}

/// What one of the two plugins says; the agent works with one TPM.
#[derive(Default)]
pub(crate) struct TpmKeys {
    address: Option<TpmAddress>,
    /// Whether an address was given that is none; that was told already.
    mistaken: bool,
    endorsement: Option<EndorsementChoice>,
    owner_password: Option<PasswordSource>,
    endorsement_password: Option<PasswordSource>,
    /// As the file says it; empty for none.
    event_log: Option<PathBuf>,
    /// The same of the list of measured files.
    ima_log: Option<PathBuf>,
}

impl TpmKeys {
    /// Reads the keys that `NodeAttestor "tpm2"` has.
    pub(crate) fn read(data: &Section<'_>) -> Self {
        Self {
            address: read_address(data),
            mistaken: has_wrong_address(data),
            endorsement: data.parsed("ek", str::parse::<EndorsementChoice>),
            owner_password: read_hierarchy_password(data, KeyHierarchy::Owner),
            endorsement_password: read_hierarchy_password(data, KeyHierarchy::Endorsement),
            event_log: data.string("event_log_path").map(PathBuf::from),
            ima_log: data.string("ima_log_path").map(PathBuf::from),
        }
    }

    /// Reads those that `NodeAttestor "tpm_devid"` and `"tpm"` have: of RSA is the endorsement key that SPIRE's server takes with the
    /// one, and by which the other's agents are known.
    pub(crate) fn read_of_rsa(data: &Section<'_>) -> Self {
        let rsa = EndorsementChoice::Only(EndorsementKind::Rsa2048);
        Self {
            address: read_address(data),
            mistaken: has_wrong_address(data),
            endorsement: data.parsed("ek", str::parse::<EndorsementChoice>).or(Some(rsa)),
            owner_password: read_hierarchy_password(data, KeyHierarchy::Owner),
            endorsement_password: read_hierarchy_password(data, KeyHierarchy::Endorsement),
            event_log: None,
            ima_log: None,
        }
    }

    /// Reads those that `KeyManager "tpm"` has, and `NodeAttestor "x509pop"` with a key in the TPM: no endorsement key is used.
    pub(crate) fn read_for_keys(data: &Section<'_>) -> Self {
        let owner_password = read_hierarchy_password(data, KeyHierarchy::Owner);
        Self { address: read_address(data), mistaken: has_wrong_address(data), owner_password, ..Self::default() }
    }

    /// Whether nothing says which TPM is meant, because what was to say it is wrong.
    pub(super) fn is_mistaken(&self) -> bool {
        self.mistaken
    }

    /// What two ways to attest say of the one TPM, or what they contradict each other in.
    pub(crate) fn and(self, other: Self) -> Result<Self, String> {
        if let (Some(a), Some(b)) = (&self.address, &other.address)
            && a != b
        {
            return Err(format!("names the TPM {a}, and {b}: the agent works with one"));
        }
        Ok(Self {
            address: self.address.or(other.address),
            mistaken: self.mistaken || other.mistaken,
            endorsement: self.endorsement.or(other.endorsement),
            owner_password: self.owner_password.or(other.owner_password),
            endorsement_password: self.endorsement_password.or(other.endorsement_password),
            event_log: self.event_log.or(other.event_log),
            ima_log: self.ima_log.or(other.ima_log),
        })
    }

    /// Both together, or what they contradict each other in.
    pub(super) fn with(self, other: Self) -> Result<TpmConfig, String> {
        if let (Some(a), Some(b)) = (&self.address, &other.address)
            && a != b
        {
            return Err(format!("names the TPM {b}, NodeAttestor names {a}: the agent works with one"));
        }
        if self.owner_password.is_some()
            && other.owner_password.is_some()
            && self.owner_password != other.owner_password
        {
            return Err("names another owner_hierarchy_password than NodeAttestor: give it once".to_owned());
        }
        let default = || DEFAULT_TPM.parse().expect("a legal device path");
        let address = self.address.or(other.address).unwrap_or_else(default);
        let event_log = match self.event_log {
            Some(path) => Some(path).filter(|path| !path.as_os_str().is_empty()).into_iter().collect(),
            None => default_paths(&address),
        };
        let ima_log = match self.ima_log {
            Some(path) => Some(path).filter(|path| !path.as_os_str().is_empty()),
            None => default_ima_list(&address),
        };
        Ok(TpmConfig {
            address,
            event_log,
            ima_log,
            endorsement: self.endorsement.unwrap_or_default(),
            owner_password: self.owner_password.or(other.owner_password).unwrap_or_default(),
            endorsement_password: self.endorsement_password.unwrap_or_default(),
        })
    }
}

fn read_address(data: &Section<'_>) -> Option<TpmAddress> {
    let path = data.parsed("tpm_device_path", str::parse::<TpmAddress>);
    let address = data.parsed("tpm_address", str::parse::<TpmAddress>);
    if data.has("tpm_device_path") && data.has("tpm_address") {
        data.mistake("tpm_address", "give either tpm_device_path or tpm_address, not both");
    }
    path.or(address)
}

/// Asked without telling of it: whoever reads the address does that.
fn has_wrong_address(data: &Section<'_>) -> bool {
    let is_wrong = |key| data.string(key).is_some_and(|text| text.parse::<TpmAddress>().is_err());
    is_wrong("tpm_device_path") || is_wrong("tpm_address")
}

fn read_hierarchy_password(data: &Section<'_>, hierarchy: KeyHierarchy) -> Option<PasswordSource> {
    read_password(data, &format!("{hierarchy}_hierarchy_password"))
}

/// The four ways to give the password `key`, of which one may be used.
pub(crate) fn read_password(data: &Section<'_>, key: &str) -> Option<PasswordSource> {
    let [file, environment, credential] = ["file", "env", "credential"].map(|form| format!("{key}_{form}"));
    let given = data.parsed(key, |text| {
        HierarchyPassword::new(Zeroizing::new(text.as_bytes().to_vec())).map(PasswordSource::Given)
    });
    if given.is_some() {
        data.warn(key, format!("whoever reads this file knows the password: better give {file} or {credential}"));
    }
    let path = data.path(&file).map(PasswordSource::File);
    if let Some(path) = &path {
        data.look(&file, || path.read().map(drop).map_err(|error| describe(&error)));
    }
    let found = [
        given,
        path,
        data.string(&environment).map(PasswordSource::Environment),
        data.parsed(&credential, credential_name).map(PasswordSource::Credential),
    ];
    let present = [key, &file, &environment, &credential].into_iter().filter(|key| data.has(key));
    if let Some(second) = present.skip(1).last() {
        data.mistake(second, format!("give the password once: {key}, {file}, {environment} or {credential}"));
    }
    found.into_iter().flatten().next()
}

fn credential_name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.contains('/') || text.starts_with('.') {
        return Err("give the name of a credential as in LoadCredential=, not a path");
    }
    Ok(text.to_owned())
}
