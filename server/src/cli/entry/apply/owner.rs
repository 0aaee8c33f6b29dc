//! Whose entries a file has.

use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_text::hex::hex;

use super::plan::Key;

/// Longest name, bytes.
const MAX_BYTES: usize = 32;
/// Bytes of an ID that tell one owner's entries apart: 128 bits.
const TELLING_BYTES: usize = 16;

/// A name that the IDs of somebody's entries begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner(String);

impl FromStr for Owner {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        // No point: it ends the name in an ID.
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        match (1..=MAX_BYTES).contains(&name.len()) && name.bytes().all(legal) {
            true => Ok(Self(name.to_owned())),
            false => Err("use 1 to 32 letters, digits, - and _"),
        }
    }
}

impl Owner {
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The ID of the entry with this key: always the same.
    pub fn id(&self, key: &Key) -> String {
        let digest = digest(&SHA256, key.text().as_bytes());
        format!("{}.{}", self.0, hex(&digest.as_ref()[..TELLING_BYTES]))
    }

    /// Whether an entry with this ID is the owner's.
    pub fn has(&self, id: &str) -> bool {
        id.strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_has_the_ids_that_begin_with_its_name_and_a_point() {
        let owner: Owner = "team".parse().expect("legal");
        for (id, has) in [("team.1", true), ("team.", true), ("team", false), ("teams.1", false), ("x.team.1", false)] {
            assert_eq!(owner.has(id), has, "{id}");
        }
        for wrong in ["", "a.b", "a b", "ä", &"x".repeat(MAX_BYTES + 1)] {
            assert!(wrong.parse::<Owner>().is_err(), "{wrong:?}");
        }
    }
}
