//! Whom a uid belongs to: a user with subordinate uids has 65,536 more of them, and is one user all the same.
//!
//! Source: subuid(5): lines `user:first:count`, the user by name or number.

use std::fs::File;
use std::io::{self, Read};

use nix::unistd::User;
use tracing::{info, warn};

const FILE: &str = "/etc/subuid";
/// Longest file read, bytes; a line has some 30.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// Most ranges kept. Each is looked at for every new connection.
const MAX_RANGES: usize = 1024;
/// First uid that is usually handed out as subordinate. Source: login.defs(5), SUB_UID_MIN.
const FIRST_SUBORDINATE: u32 = 100_000;
/// How many are usually handed out at once. Source: login.defs(5), SUB_UID_COUNT.
const BLOCK: u32 = 65_536;

/// A user as fairness counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LocalUser(u32);

/// Which uids are subordinate to which user. The default: none to any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubordinateUids {
    ranges: Vec<Range>,
    /// The ranges are not known: every usual block counts as one user.
    in_blocks: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    last: u32,
    /// `None`: root's, who gives each block to another container.
    owner: Option<u32>,
}

impl SubordinateUids {
    /// Reads /etc/subuid, as it is now. Without the file nobody has subordinate uids; if it cannot be read, each block of
    /// 65,536 uids from 100,000 on counts as one user.
    pub fn of_system() -> Self {
        let by_name = |name: &str| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        match read_bounded() {
            Ok(text) => Self::parse(&text, by_name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                warn!(file = FILE, %error, "cannot read who has subordinate uids; every 65,536 uids from 100000 on count as one user");
                Self::unknown()
            }
        }
    }

    /// Nothing is known: every usual block counts as one user.
    pub(super) fn unknown() -> Self {
        Self { ranges: Vec::new(), in_blocks: true }
    }

    /// Reads the text of such a file. Lines that say nothing are left out, as the tools that use it do.
    fn parse(text: &str, uid_of: impl Fn(&str) -> Option<u32>) -> Self {
        let mut ranges: Vec<Range> = text.lines().filter_map(|line| Range::parse(line, &uid_of)).collect();
        let in_blocks = ranges.len() > MAX_RANGES;
        if in_blocks {
            info!(
                file = FILE,
                ranges = ranges.len(),
                "more ranges than are kept; the others count in blocks of 65,536"
            );
            ranges.truncate(MAX_RANGES);
        }
        Self { ranges, in_blocks }
    }

    /// Who is behind `uid`.
    pub(super) fn user_of(&self, uid: u32) -> LocalUser {
        let range = self.ranges.iter().find(|range| (range.first..=range.last).contains(&uid));
        LocalUser(match range {
            Some(Range { owner: Some(owner), .. }) => *owner,
            Some(Range { owner: None, first, .. }) => block_start(*first, uid),
            None if self.in_blocks && uid >= FIRST_SUBORDINATE => block_start(FIRST_SUBORDINATE, uid),
            None => uid,
        })
    }
}

impl Range {
    fn parse(line: &str, uid_of: impl Fn(&str) -> Option<u32>) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
        let last = first.saturating_add(count.checked_sub(1)?);
        // An owner that does not exist (any more) is one user by the range's own number.
        let owner = owner.parse().ok().or_else(|| uid_of(owner)).unwrap_or(first);
        Some(Self { first, last, owner: (owner != 0).then_some(owner) })
    }
}

fn block_start(first: u32, uid: u32) -> u32 {
    first + (uid - first) / BLOCK * BLOCK
}

fn read_bounded() -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(FILE)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("the file is longer than 256 KiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> SubordinateUids {
        SubordinateUids::parse(text, |name| match name {
            "root" => Some(0),
            "alice" => Some(1000),
            _ => None,
        })
    }

    #[test]
    fn subordinate_uids_survive_damage() {
        let text = "alice:100000:65536\n1001:165536:65536\n# comment\nroot:4294901760:65536\n";
        ironroot_fuzz::Target::new("/etc/subuid").seed(text).survives(|bytes| {
            let uids = parse(&String::from_utf8_lossy(bytes));
            for uid in [0, 1000, 100_000, 165_536, u32::MAX] {
                let _ = uids.user_of(uid);
            }
        });
    }

    #[test]
    fn the_uids_of_a_range_are_its_owners() {
        let uids = parse("alice:100000:65536\n1001:165536:65536\n# comment\nbroken:x:1\nalice:1:\n\nghost:300000:10\n");
        for (uid, user) in [
            (0, 0),
            (1000, 1000),
            (99_999, 99_999),
            (100_000, 1000),
            (165_535, 1000),
            (165_536, 1001),
            (231_072, 231_072),
            (300_009, 300_000),
            (300_010, 300_010),
        ] {
            assert_eq!(uids.user_of(uid), LocalUser(user), "{uid}");
        }
    }

    #[test]
    fn roots_containers_are_users_of_their_own() {
        let uids = parse("root:1000000:1000000000\n");
        assert_eq!(uids.user_of(1_000_001), uids.user_of(1_065_535));
        assert_ne!(uids.user_of(1_000_001), uids.user_of(1_065_536));
        assert_ne!(uids.user_of(1_000_001), LocalUser(0));
    }

    #[test]
    fn unknown_ranges_are_counted_in_blocks_and_no_number_overflows() {
        let uids = SubordinateUids::unknown();
        assert_eq!(uids.user_of(100_000), uids.user_of(165_535));
        assert_ne!(uids.user_of(165_535), uids.user_of(165_536));
        assert_eq!((uids.user_of(1000), uids.user_of(99_999)), (LocalUser(1000), LocalUser(99_999)));
        uids.user_of(u32::MAX);
        assert_eq!(parse("alice:4294967290:4294967295").user_of(u32::MAX), LocalUser(1000));
        assert_eq!(parse("alice:5:0"), SubordinateUids::default());
    }

    #[test]
    fn more_ranges_than_are_kept_fall_back_to_blocks() {
        let text: String = (0..5000).map(|n| format!("{n}:{}:65536\n", 100_000 + n * 65_536)).collect();
        let uids = parse(&text);
        assert!(uids.ranges.len() == MAX_RANGES && uids.in_blocks);
        let far = 100_000 + 4_999 * 65_536;
        assert_eq!(uids.user_of(far), uids.user_of(far + 65_535));
    }

    #[test]
    fn without_ranges_every_uid_is_its_own_user() {
        assert_eq!(SubordinateUids::default().user_of(200_000), LocalUser(200_000));
    }
}
