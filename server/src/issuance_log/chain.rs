//! A record, and how it hangs on the one before.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use ironroot_api::spiffe_id::MAX_SPIFFE_ID_BYTES;
use ironroot_text::hex::hex;
use serde::{Deserialize, Serialize};

/// Longest text of a record's field, bytes as JSON has it; what is longer is cut.
pub const MAX_OBJECT_BYTES: usize = 1024;
/// Longest object of a record that gives or lifts a ban, bytes: `certificate`, a hash, and an ID of any length. Cut, it would be another's.
pub const MAX_BAN_BYTES: usize = MAX_SPIFFE_ID_BYTES + 128;
/// What gives and lifts bans.
const BANS: [&str; 4] = ["BanAgent", "BanDevice", "DeleteAgent", "DeleteDevice"];
/// What every hash begins with: no other hash of ours does.
const DOMAIN: &[u8] = b"ironroot issuance log 1\n";

/// Where a chain has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which chain: one that was begun anew, or goes on after an older state was accepted, has a greater one. UNIX seconds of that.
    pub epoch: u64,
    /// How many records there were, over all epochs that it has gone through.
    pub sequence: u64,
    /// Of the last of them.
    pub hash: [u8; 32],
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    /// See [`Head::epoch`].
    pub epoch: u64,
    /// Its number, from 1 on.
    pub sequence: u64,
    /// When, UNIX seconds.
    pub at: i64,
    /// What was done: a method's name, as in audit lines, or `Authority` for what the CA does by itself.
    pub method: String,
    /// To what: an ID, a serial number.
    pub object: String,
    /// Who had it done.
    pub by: String,
    /// How far the data store had come at least when it was written down: its newest revision. Records of before this was noted, and
    /// those of the start, do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
}

/// A line of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What it says.
    pub body: Body,
    /// Over the hash before it and what it says, in hexadecimal.
    pub hash: String,
}

impl Head {
    /// Of a chain that has no record yet.
    pub fn of_nothing(epoch: u64) -> Self {
        Self { epoch, sequence: 0, hash: [0; 32] }
    }

    /// The record that follows, and the head with it.
    pub fn with(&self, body: Body) -> (Record, Self) {
        let hash = hash(&self.hash, &body);
        let head = Self { epoch: body.epoch, sequence: body.sequence, hash };
        (Record { body, hash: hex(&hash) }, head)
    }

    /// The head with `record`, if that is the one which follows; or what speaks against it.
    pub fn follow(&self, record: &Record) -> Result<Self, &'static str> {
        let Body { epoch, sequence, .. } = record.body;
        if sequence != self.sequence + 1 {
            return Err("a record is missing, or one is there twice");
        }
        if epoch < self.epoch {
            return Err("an epoch is older than the one before");
        }
        let hash = hash(&self.hash, &record.body);
        match hex(&hash) == record.hash {
            true => Ok(Self { epoch, sequence, hash }),
            false => Err("a record has another hash than it says"),
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of epoch {}, {}", self.sequence, self.epoch, hex(&self.hash))
    }
}

fn hash(before: &[u8; 32], body: &Body) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    for part in [DOMAIN, before, &serde_json::to_vec(body).expect("texts and numbers are JSON")] {
        hash.update(part);
    }
    hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Longest object of a record of that method, bytes.
pub(super) fn longest_object(method: &str) -> usize {
    if BANS.contains(&method) { MAX_BAN_BYTES } else { MAX_OBJECT_BYTES }
}

/// Adds the line of a record.
pub(super) fn push_line(lines: &mut Vec<u8>, record: &Record) {
    serde_json::to_writer(&mut *lines, record).expect("texts and numbers are JSON");
    lines.push(b'\n');
}

/// `text` as a record has it: without control characters, of which JSON makes six bytes each, and not longer than `longest` bytes there.
pub(super) fn recorded(text: &str, longest: usize) -> String {
    let mut bytes = 0;
    let mut fits = |letter: &char| {
        bytes += if matches!(letter, '"' | '\\') { 2 } else { letter.len_utf8() };
        bytes <= longest
    };
    let letters = text.chars().map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter });
    letters.take_while(&mut fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_takes_no_more_of_a_line_than_its_bound_whatever_it_is_made_of() {
        for letter in ["a", "\u{1}", "\"", "\\", "\u{80}", "\u{10ffff}", "ä", "\u{7f}", "\n"] {
            let line = serde_json::to_string(&recorded(&letter.repeat(5000), MAX_OBJECT_BYTES)).expect("a text");
            let bytes = line.len() - 2;
            assert!((MAX_OBJECT_BYTES - 3..=MAX_OBJECT_BYTES).contains(&bytes), "{letter:?}: {bytes}");
        }
        assert_eq!(recorded("spiffe://td/w audience ä", MAX_OBJECT_BYTES), "spiffe://td/w audience ä");
    }
}
