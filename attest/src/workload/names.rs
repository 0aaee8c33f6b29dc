//! Names of users and groups, from the system's databases (NSS).
//!
//! A number without a name, or a name that no selector can hold, simply has no name selector, as in SPIRE.

use nix::unistd::{Gid, Group, Uid, User};

use crate::Selector;

/// `unix:user:…` for a user ID.
pub(super) fn user(uid: u32) -> Option<Selector> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
    Selector::new("unix", &format!("user:{}", user.name)).ok()
}

/// `unix:group:…` or `unix:supplementary_group:…` for a group ID.
pub(super) fn group(kind: &str, gid: u32) -> Option<Selector> {
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten()?;
    Selector::new("unix", &format!("{kind}:{}", group.name)).ok()
}

/// `unix:<kind>:<number>`.
pub(super) fn number(kind: &str, id: u32) -> Selector {
    Selector::new("unix", &format!("{kind}:{id}")).expect("a constant kind and a decimal number")
}

#[cfg(test)]
mod tests {
    use super::*;

    //= FLT-A17
    #[test]
    fn root_has_names_and_an_unknown_number_has_none() {
        assert_eq!(user(0).expect("has one").to_string(), "unix:user:root");
        assert_eq!(group("supplementary_group", 0).expect("has one").to_string(), "unix:supplementary_group:root");
        assert_eq!(user(3_999_999_999), None);
        assert_eq!(group("group", 3_999_999_999), None);
        assert_eq!(number("uid", 3_999_999_999).to_string(), "unix:uid:3999999999");
    }
}
