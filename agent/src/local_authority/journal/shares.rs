//! What of the journal the notes of JWT-SVIDs may take. Pure.
//!
//! Workloads decide how many JWT-SVIDs there are, and for whom; X509-SVIDs come by the clock, one for each entry. So notes of JWT-SVIDs have a
//! part of the journal, and of that part an entry's have no more than half of what other entries leave: whoever asks for ever new audiences
//! leaves as much as it takes, and so does the next.

use std::collections::HashMap;

use super::{Issued, MAX_JOURNAL_BYTES, lines_of};

/// Bytes that notes of JWT-SVIDs may take, some 2,000 of them; the rest is X509-SVIDs' alone.
pub const MAX_TOKEN_BYTES_NOTED: usize = MAX_JOURNAL_BYTES / 2;

/// Bytes of notes of JWT-SVIDs.
#[derive(Debug, Default)]
pub(super) struct Shares {
    by_entry: HashMap<String, usize>,
    all: usize,
}

impl Shares {
    /// Of what is noted.
    pub fn of<'a>(noted: impl IntoIterator<Item = &'a Issued>) -> Self {
        let mut shares = Self::default();
        noted.into_iter().for_each(|one| shares.add(one));
        shares
    }

    /// Counts one more note; those of X509-SVIDs count for nothing.
    pub fn add(&mut self, issued: &Issued) {
        if issued.jwt.is_some() {
            let bytes = lines_of([issued]).len();
            *self.by_entry.entry(issued.entry_id.clone()).or_default() += bytes;
            self.all += bytes;
        }
    }

    /// Whether the entry's share has room for `bytes` more.
    pub fn has_room(&self, entry_id: &str, bytes: usize) -> bool {
        let own = self.by_entry.get(entry_id).copied().unwrap_or_default();
        let others = self.all - own;
        own + bytes <= MAX_TOKEN_BYTES_NOTED.saturating_sub(others) / 2
    }
}

/// The same notes with those of JWT-SVIDs that differ in nothing but their times as one: it says how many they are, when the first was signed and
/// when the last ends.
pub(super) fn merged(noted: impl IntoIterator<Item = Issued>) -> Vec<Issued> {
    let (mut merged, mut places) = (Vec::<Issued>::new(), HashMap::new());
    for one in noted {
        let Some(jwt) = &one.jwt else {
            merged.push(one);
            continue;
        };
        let key = (one.entry_id.clone(), one.spiffe_id.clone(), one.serial.clone(), jwt.audience.clone());
        let known = places.get(&key).and_then(|place: &usize| merged.get_mut(*place));
        match known.and_then(|known| known.jwt.as_mut().map(|told| (told, &mut known.issued_at, &mut known.expires_at)))
        {
            Some((told, issued_at, expires_at)) => {
                told.count = told.count.saturating_add(jwt.count);
                (*issued_at, *expires_at) = (one.issued_at.min(*issued_at), one.expires_at.max(*expires_at));
            }
            None => {
                places.insert(key, merged.len());
                merged.push(one);
            }
        }
    }
    merged
}
