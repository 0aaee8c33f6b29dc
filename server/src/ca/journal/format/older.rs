//! Formats 1 and 2: one server, CAs and roots, keys called after their places.

use ironroot_api::TrustDomain;
use serde::Deserialize;

use super::super::{
    Authority, CaCertificate, Credential, Journal, KeyRecord, Place, Purpose, Slot, SlotName, Slots, Verdict,
};
use super::JournalError;
use crate::ca::server_name::ServerName;
use crate::clock::ClockRecord;

#[derive(Deserialize)]
struct OldJournal {
    trust_domain: String,
    sequence_number: u64,
    #[serde(default)]
    next_key: u64,
    #[serde(default)]
    clock: Option<ClockRecord>,
    #[serde(default)]
    roots: OldRoots,
    a: OldSlot,
    b: OldSlot,
    retired: Vec<OldAuthority>,
}

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum OldSlot {
    Empty,
    Intended,
    Prepared(OldAuthority),
    Active(OldAuthority),
    Old(OldAuthority),
}

#[derive(Default, Deserialize)]
struct OldRoots {
    a: OldRoot,
    b: OldRoot,
}

#[derive(Default, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum OldRoot {
    #[default]
    Empty,
    Intended,
    Made(OldAuthority),
}

#[derive(Deserialize)]
struct OldAuthority {
    certificate: CaCertificate,
    issued_at: i64,
    not_after: i64,
    #[serde(default)]
    issued_counted: i64,
    #[serde(default)]
    key: u64,
    #[serde(default)]
    root: Option<u64>,
}

/// Reads a journal of format 1 or 2.
pub(super) fn read(bytes: &[u8], format: u32, trust_domain: &TrustDomain) -> Result<Journal, JournalError> {
    let mut old: OldJournal = serde_json::from_slice(bytes).map_err(JournalError::Malformed)?;
    if old.trust_domain != trust_domain.as_str() {
        return Err(JournalError::OtherTrustDomain(old.trust_domain));
    }
    if format == 1 {
        old.number_keys();
    }
    let mut journal = Journal::new(trust_domain, &ServerName::default());
    journal.sequence_number = old.sequence_number;
    journal.next_key = old.next_key;
    journal.clock = old.clock;
    let names = Names(trust_domain);
    *journal.slots_mut(Purpose::Root) = names.roots(old.roots);
    *journal.slots_mut(Purpose::X509Ca) = names.cas(old.a, old.b, old.retired);
    Ok(journal)
}

impl OldJournal {
    /// Format 1: each authority had a key of its own, and the last time that is known is when the newest was issued.
    fn number_keys(&mut self) {
        let slots = [&mut self.a, &mut self.b].into_iter().filter_map(OldSlot::authority_mut);
        let mut seen = None;
        for authority in self.retired.iter_mut().chain(slots) {
            authority.key = self.next_key;
            self.next_key += 1;
            seen = seen.max(Some(authority.issued_at));
        }
        self.clock = seen.map(ClockRecord::unwatched);
    }
}

impl OldSlot {
    fn authority_mut(&mut self) -> Option<&mut OldAuthority> {
        match self {
            Self::Empty | Self::Intended => None,
            Self::Prepared(authority) | Self::Active(authority) | Self::Old(authority) => Some(authority),
        }
    }
}

/// What keys were called in this trust domain.
struct Names<'a>(&'a TrustDomain);

impl Names<'_> {
    fn key(&self, place: Place) -> KeyRecord {
        KeyRecord::made(place.key_name(self.0, &ServerName::default()))
    }

    fn authority(&self, old: OldAuthority, place: Place) -> Authority {
        let OldAuthority { certificate, issued_at, not_after, issued_counted, key, root } = old;
        let (credential, in_token) = (Credential::Certificate(certificate), self.key(place));
        let (upstream, verdict) = (None, Verdict::None);
        Authority { credential, issued_at, not_after, issued_counted, key, in_token, root, upstream, verdict }
    }

    fn ca(&self, old: OldSlot, place: Place) -> Slot {
        match old {
            OldSlot::Empty => Slot::Empty,
            OldSlot::Intended => Slot::Intended(self.key(place)),
            OldSlot::Prepared(authority) => Slot::Prepared(self.authority(authority, place)),
            OldSlot::Active(authority) => Slot::Active(self.authority(authority, place)),
            OldSlot::Old(authority) => Slot::Old(self.authority(authority, place)),
        }
    }

    /// A retired authority's key is in the slot that has a key of its number, or in none.
    fn cas(&self, a: OldSlot, b: OldSlot, retired: Vec<OldAuthority>) -> Slots {
        let [a, b] = [(a, SlotName::A), (b, SlotName::B)].map(|(slot, name)| self.ca(slot, Place::ca(name)));
        let of_b = b.authority().map(|authority| authority.key);
        let retired = retired.into_iter().map(|authority| {
            let slot = if of_b == Some(authority.key) { SlotName::B } else { SlotName::A };
            self.authority(authority, Place::ca(slot))
        });
        Slots { retired: retired.collect(), a, b }
    }

    /// The root that ends first signed, and the other comes next.
    fn roots(&self, old: OldRoots) -> Slots {
        let made = |root: &OldRoot| if let OldRoot::Made(root) = root { Some(root.not_after) } else { None };
        let first = made(&old.a).into_iter().chain(made(&old.b)).min();
        let [a, b] = [(old.a, SlotName::A), (old.b, SlotName::B)].map(|(root, name)| match root {
            OldRoot::Empty => Slot::Empty,
            OldRoot::Intended => Slot::Intended(self.key(Place::root(name))),
            OldRoot::Made(root) if Some(root.not_after) == first => {
                Slot::Active(self.authority(root, Place::root(name)))
            }
            OldRoot::Made(root) => Slot::Prepared(self.authority(root, Place::root(name))),
        });
        Slots { a, b, retired: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of table ca_journal that the server of 26 November 2026 wrote, before this format: with a root, and without one.
    const ROOTED: &str = include_str!("fixtures/2-rooted.json");
    const SELF_SIGNED: &str = include_str!("fixtures/2-self-signed.json");

    fn trust_domain() -> TrustDomain {
        TrustDomain::new("example.org").unwrap()
    }

    fn read(text: &str) -> Journal {
        let journal = Journal::from_bytes(text.as_bytes(), &trust_domain(), &ServerName::default()).unwrap();
        let again = Journal::from_bytes(&journal.to_bytes(), &trust_domain(), &ServerName::default()).unwrap();
        assert_eq!(again, journal, "it is of today's format from then on");
        journal
    }

    fn assert_keys_are_called_as_they_were(journal: &Journal) {
        for place in Place::all() {
            let name = place.key_name(&trust_domain(), &ServerName::default());
            if let Some(key) = journal.slot(place).key() {
                assert_eq!(key, &KeyRecord::made(name), "{place}");
            }
        }
    }

    #[test]
    fn a_rooted_ca_of_format_2_is_read() {
        let journal = read(ROOTED);
        assert_keys_are_called_as_they_were(&journal);
        let (roots, cas) = (journal.slots(Purpose::Root), journal.slots(Purpose::X509Ca));
        let (slot, root) = roots.active().unwrap();
        assert_eq!((slot, root.key, root.root), (SlotName::A, 0, None));
        let numbers = |authority: (SlotName, &Authority)| (authority.0, authority.1.key, authority.1.root);
        assert_eq!(cas.active().map(numbers), Some((SlotName::B, 2, Some(0))));
        assert_eq!(cas.prepared().map(numbers), Some((SlotName::A, 3, Some(0))));
        assert_eq!(cas.authorities().len(), 3, "one is retired");
        assert_eq!((journal.anchors(), journal.sequence_number(), journal.next_key()), (vec![root], 1, 4));
        assert_eq!(journal.clock().map(ClockRecord::counted), Some(61));
    }

    #[test]
    fn a_ca_of_format_2_that_signs_itself_is_read() {
        let journal = read(SELF_SIGNED);
        assert_keys_are_called_as_they_were(&journal);
        let keys: Vec<u64> = journal.anchors().into_iter().map(|authority| authority.key).collect();
        assert_eq!((keys, journal.sequence_number(), journal.next_key()), (vec![0, 1, 2], 3, 3));
        assert_eq!(journal.slots(Purpose::Root), &Slots::default());
    }

    /// What the server wrote before it knew its clock.
    #[test]
    fn reads_format_1_gives_each_authority_its_key_and_believes_no_clock_yet() {
        let mut json: serde_json::Value = serde_json::from_str(SELF_SIGNED).unwrap();
        json["format"] = 1.into();
        let fields = json.as_object_mut().unwrap();
        fields.retain(|field, _| !["clock", "next_key", "roots"].contains(&field.as_str()));
        let retired = fields["retired"].as_array_mut().unwrap().remove(0);
        let mut authorities = [fields["a"].clone(), fields["b"].clone(), retired];
        for authority in &mut authorities {
            let newer = ["key", "issued_counted", "root"];
            authority.as_object_mut().unwrap().retain(|field, _| !newer.contains(&field.as_str()));
        }
        let [a, b, retired] = authorities;
        (fields["a"], fields["b"], fields["retired"]) = (a, b, vec![retired].into());
        let journal = read(&json.to_string());
        let keys: std::collections::BTreeSet<u64> = journal.anchors().iter().map(|a| a.key).collect();
        assert_eq!((keys.len(), journal.next_key(), journal.sequence_number()), (3, 3, 3));
        let newest = journal.anchors().iter().map(|authority| authority.issued_at).max().unwrap();
        assert_eq!(journal.clock(), Some(&ClockRecord::unwatched(newest)));
    }
}
