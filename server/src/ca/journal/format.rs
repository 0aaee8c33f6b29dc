//! The journal as bytes, and whether it can be believed.

use ironroot_api::TrustDomain;
use ironroot_api::certificate::{Certificate, CertificateError};
use serde::Deserialize;
use thiserror::Error;

use super::{Authority, Journal, Slot, SlotName};
use crate::clock::ClockRecord;

/// The format written. Format 1 knew neither the clock, nor which key an authority has, nor roots.
pub(super) const FORMAT: u32 = 2;
/// The oldest format read.
const OLDEST_FORMAT: u32 = 1;

/// Why a journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// Not what a server wrote, or damaged.
    #[error("it does not parse; restore the data store from its backup")]
    Malformed(#[source] serde_json::Error),
    /// Written by a newer server.
    #[error("it has format {0}, this server knows formats {OLDEST_FORMAT} to {FORMAT}; run the newer server")]
    Format(u32),
    /// Another trust domain's.
    #[error("it belongs to trust domain {0:?}; the trust domain of a server cannot be changed")]
    OtherTrustDomain(String),
    /// An authority's certificate is damaged.
    #[error("an authority's certificate is damaged; restore the data store from its backup")]
    Certificate(#[from] CertificateError),
    /// What it says cannot be.
    #[error("it contradicts itself ({0}); restore the data store from its backup")]
    Contradiction(&'static str),
}

impl Journal {
    /// Reads what [`Journal::to_bytes`] wrote, or what an older server wrote.
    pub fn from_bytes(bytes: &[u8], trust_domain: &TrustDomain) -> Result<Self, JournalError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(JournalError::Malformed)?;
        if !(OLDEST_FORMAT..=FORMAT).contains(&head.format) {
            return Err(JournalError::Format(head.format));
        }
        let mut journal: Self = serde_json::from_slice(bytes).map_err(JournalError::Malformed)?;
        if journal.trust_domain != trust_domain.as_str() {
            return Err(JournalError::OtherTrustDomain(journal.trust_domain));
        }
        journal.check()?;
        if head.format == 1 {
            journal.upgrade();
        }
        Ok(journal)
    }

    /// For the store.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers, strings and lists are JSON")
    }

    /// Format 1: each authority had a key of its own, and the last time that is known is when the newest was issued.
    fn upgrade(&mut self) {
        let slots = [&mut self.a, &mut self.b].into_iter().filter_map(Slot::authority_mut);
        for authority in self.retired.iter_mut().chain(slots) {
            authority.key = self.next_key;
            self.next_key += 1;
        }
        self.format = FORMAT;
        let seen = self.authorities().into_iter().map(|authority| authority.issued_at).max();
        self.clock = seen.map(ClockRecord::unwatched);
    }

    /// Makes sure that it can be believed.
    fn check(&self) -> Result<(), JournalError> {
        let count = |of: fn(&Slot) -> bool| SlotName::BOTH.into_iter().filter(|name| of(self.slot(*name))).count();
        if count(|slot| matches!(slot, Slot::Active(_))) > 1 {
            return Err(JournalError::Contradiction("two slots are active"));
        }
        if count(|slot| matches!(slot, Slot::Intended | Slot::Prepared(_))) > 1 {
            return Err(JournalError::Contradiction("two slots are being prepared"));
        }
        self.every_authority().into_iter().try_for_each(|authority| check_authority(authority, &self.trust_domain))
    }
}

fn check_authority(authority: &Authority, trust_domain: &str) -> Result<(), JournalError> {
    let certificate = Certificate::parse(&authority.certificate)?;
    if certificate.not_after_unix() != authority.not_after {
        return Err(JournalError::Contradiction("an authority ends at another time than its certificate"));
    }
    if certificate.spiffe_id()?.trust_domain_name() != trust_domain {
        return Err(JournalError::Contradiction("an authority is another trust domain's"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{authority, full, trust_domain};
    use super::*;
    use crate::clock::{ClockWatch, Reading};

    #[test]
    fn reads_what_it_wrote() {
        let reading = Reading { wall_unix: 1_800_000_000, boot_seconds: 7 };
        let clock = ClockWatch::start(None, "boot", reading).record();
        for journal in [
            Journal::new(&trust_domain()),
            Journal::new(&trust_domain()).intend(SlotName::A),
            full(),
            full().with_clock(clock),
            full().intend_root(SlotName::A),
            full().make_root(SlotName::B, authority("spiffe://example.org")),
        ] {
            assert_eq!(Journal::from_bytes(&journal.to_bytes(), &trust_domain()).unwrap(), journal);
        }
    }

    #[test]
    fn refuses_what_it_cannot_believe() {
        let text = String::from_utf8(full().to_bytes()).unwrap();
        let read = |text: &str| Journal::from_bytes(text.as_bytes(), &trust_domain()).unwrap_err();
        assert!(matches!(read(""), JournalError::Malformed(_)));
        assert!(matches!(read(&text[..text.len() - 1]), JournalError::Malformed(_)));
        assert!(matches!(read(&text.replace("\"format\":2", "\"format\":3")), JournalError::Format(3)));
        assert!(matches!(read(&text.replace("\"format\":2", "\"format\":0")), JournalError::Format(0)));
        assert!(matches!(read(&text.replace("\"MII", "\"AAA")), JournalError::Certificate(_)));
        assert!(matches!(read(&text.replace("\"prepared\"", "\"active\"")), JournalError::Contradiction(_)));
        let other = TrustDomain::new("example.com").unwrap();
        assert!(matches!(Journal::from_bytes(text.as_bytes(), &other), Err(JournalError::OtherTrustDomain(_))));
        let foreign = Journal::new(&trust_domain()).prepare(SlotName::A, authority("spiffe://example.com"));
        assert!(matches!(read(&String::from_utf8(foreign.to_bytes()).unwrap()), JournalError::Contradiction(_)));
        let mut moved = authority("spiffe://example.org");
        moved.not_after += 1;
        let moved = Journal::new(&trust_domain()).prepare(SlotName::A, moved);
        assert!(matches!(read(&String::from_utf8(moved.to_bytes()).unwrap()), JournalError::Contradiction(_)));
    }

    /// What the server wrote before it knew its clock.
    fn format_1() -> Vec<u8> {
        let mut json: serde_json::Value = serde_json::from_slice(&full().to_bytes()).unwrap();
        json["format"] = 1.into();
        let fields = json.as_object_mut().unwrap();
        fields.remove("clock");
        fields.remove("next_key");
        fields.remove("roots");
        for place in ["a", "b"] {
            let slot = fields[place].as_object_mut().unwrap();
            slot.remove("key");
            slot.remove("issued_counted");
            slot.remove("root");
        }
        for retired in fields["retired"].as_array_mut().unwrap() {
            retired.as_object_mut().unwrap().remove("key");
            retired.as_object_mut().unwrap().remove("issued_counted");
            retired.as_object_mut().unwrap().remove("root");
        }
        serde_json::to_vec(&json).unwrap()
    }

    #[test]
    fn reads_format_1_gives_each_authority_its_key_and_believes_no_clock_yet() {
        let journal = Journal::from_bytes(&format_1(), &trust_domain()).unwrap();
        let keys: std::collections::BTreeSet<u64> = journal.authorities().iter().map(|a| a.key).collect();
        assert_eq!(keys.len(), 3);
        assert!(journal.next_key() > *keys.last().unwrap());
        assert_eq!(journal.clock(), Some(&ClockRecord::unwatched(1_800_000_000)));
        assert_eq!(journal.sequence_number(), full().sequence_number());
        let written = Journal::from_bytes(&journal.to_bytes(), &trust_domain()).unwrap();
        assert_eq!(written, journal, "it is format {FORMAT} from then on");
    }
}
