//! SPIRE's key file: read as ours are, and left as it is.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::TakeoverError;
use crate::keys::{KeyFile, SoftwareKey};

/// The keys of SPIRE's KeyManager "disk", by their IDs.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, SoftwareKey>, TakeoverError> {
    let keys = KeyFile::at(path).read().map_err(TakeoverError::Keys)?;
    match keys.is_empty() && !path.exists() {
        true => Err(TakeoverError::NoKeys(path.to_owned())),
        false => Ok(keys),
    }
}
