//! The journal as bytes, and whether it can be believed.

mod older;

use ironroot_api::TrustDomain;
use ironroot_api::certificate::CertificateError;
use serde::Deserialize;
use thiserror::Error;

use super::{Journal, Purpose, ServerName, Slot, SlotName, Slots};

/// The format written. Format 1 knew neither the clock, nor which key an authority has, nor roots; format 2 neither purposes, nor
/// what keys are called in the token, nor other servers; format 3 no keys that sign JWT-SVIDs; format 4 nothing that an operator said
/// of an authority; format 5 no authority above the server; format 6 no keys that sign WIT-SVIDs.
pub(super) const FORMAT: u32 = 7;
/// The oldest format that differs from today's only in what it does not have.
const OLDEST_LIKE_TODAY: u32 = 3;
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
    /// Another server's.
    #[error("it belongs to the server {found:?}, and this one is {expected:?}; correct server_name")]
    OtherServer {
        /// The server's name in the journal.
        found: String,
        /// `server_name` of this configuration; empty if it has none.
        expected: String,
    },
    /// An authority's certificate is damaged.
    #[error("an authority's certificate is damaged; restore the data store from its backup")]
    Certificate(#[from] CertificateError),
    /// What it says cannot be.
    #[error("it contradicts itself ({0}); restore the data store from its backup")]
    Contradiction(&'static str),
}

impl Journal {
    /// Reads what [`Journal::to_bytes`] wrote, or what an older server wrote. One of a server without a name becomes `server`'s.
    pub fn from_bytes(bytes: &[u8], trust_domain: &TrustDomain, server: &ServerName) -> Result<Self, JournalError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(JournalError::Malformed)?;
        let mut journal: Self = match head.format {
            OLDEST_LIKE_TODAY..=FORMAT => serde_json::from_slice(bytes).map_err(JournalError::Malformed)?,
            OLDEST_FORMAT..OLDEST_LIKE_TODAY => older::read(bytes, head.format, trust_domain)?,
            other => return Err(JournalError::Format(other)),
        };
        journal.format = FORMAT;
        journal.check(trust_domain)?;
        journal.become_of(server)?;
        Ok(journal)
    }

    /// The JSON that [`from_bytes`](Self::from_bytes) reads, in the newest format.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers, strings and lists are JSON")
    }

    /// Makes sure that it can be believed.
    pub(super) fn check(&mut self, trust_domain: &TrustDomain) -> Result<(), JournalError> {
        if self.trust_domain != trust_domain.as_str() {
            return Err(JournalError::OtherTrustDomain(self.trust_domain.clone()));
        }
        // A purpose that is newer than the journal has empty places.
        for purpose in Purpose::ALL {
            self.slots.entry(purpose).or_default();
        }
        self.slots.values().try_for_each(check_slots)?;
        let in_slots = self.slots.values().flat_map(|slots| SlotName::BOTH.map(|name| slots.slot(name)));
        for authority in in_slots.filter_map(Slot::authority) {
            authority.credential.check(&self.trust_domain, authority.not_after)?;
        }
        // What only verifies may be another maker's.
        let mut retired = self.slots.values().flat_map(|slots| &slots.retired);
        retired.try_for_each(|authority| authority.credential.check_end(authority.not_after))
    }

    fn become_of(&mut self, server: &ServerName) -> Result<(), JournalError> {
        if self.server != server.as_str() && !self.server.is_empty() {
            let (found, expected) = (self.server.clone(), server.as_str().to_owned());
            return Err(JournalError::OtherServer { found, expected });
        }
        self.server = server.as_str().to_owned();
        Ok(())
    }
}

fn check_slots(slots: &Slots) -> Result<(), JournalError> {
    let count = |of: fn(&Slot) -> bool| SlotName::BOTH.into_iter().filter(|name| of(slots.slot(*name))).count();
    if count(|slot| matches!(slot, Slot::Active(_))) > 1 {
        return Err(JournalError::Contradiction("two slots are active"));
    }
    if count(|slot| matches!(slot, Slot::Intended(_) | Slot::Prepared(_))) > 1 {
        return Err(JournalError::Contradiction("two slots are being prepared"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{authority, founding, full, jwt_authority, made, trust_domain};
    use super::super::{Authority, Credential, KeyMark, Place, UpstreamChain};
    use super::*;
    use crate::clock::{ClockWatch, Reading};

    fn read(bytes: &[u8]) -> Result<Journal, JournalError> {
        Journal::from_bytes(bytes, &trust_domain(), &ServerName::default())
    }

    #[test]
    fn reads_what_it_wrote() {
        let reading = Reading { wall_unix: 1_800_000_000, boot_seconds: 7 };
        let clock = ClockWatch::start(None, "boot", reading).record();
        for journal in [
            founding(),
            founding().intend(Place::ca(SlotName::A), made("a")),
            full(),
            full().with_clock(clock),
            full().with_used(KeyMark::of(b"one")).intend(Place::root(SlotName::A), made("root")),
            full().prepare(Place::root(SlotName::B), authority("spiffe://example.org")),
            full().prepare(Place::jwt(SlotName::A), jwt_authority()).activate(Place::jwt(SlotName::A)),
            full().taint(Purpose::X509Ca, 0).activate_by_hand(Place::ca(SlotName::A)).revoke(Purpose::X509Ca, 1),
        ] {
            assert_eq!(read(&journal.to_bytes()).unwrap(), journal);
        }
    }

    #[test]
    fn refuses_what_it_cannot_believe() {
        let text = String::from_utf8(full().to_bytes()).unwrap();
        let refused = |text: &str| read(text.as_bytes()).unwrap_err();
        assert!(matches!(refused(""), JournalError::Malformed(_)));
        assert!(matches!(refused(&text[..text.len() - 1]), JournalError::Malformed(_)));
        assert!(matches!(refused(&text.replace("\"format\":7", "\"format\":8")), JournalError::Format(8)));
        assert!(matches!(refused(&text.replace("\"format\":7", "\"format\":0")), JournalError::Format(0)));
        assert!(matches!(refused(&text.replace("\"MII", "\"AAA")), JournalError::Malformed(_)));
        assert!(matches!(refused(&text.replace("\"prepared\"", "\"active\"")), JournalError::Contradiction(_)));
        let other = TrustDomain::new("example.com").unwrap();
        let foreign = Journal::from_bytes(text.as_bytes(), &other, &ServerName::default());
        assert!(matches!(foreign, Err(JournalError::OtherTrustDomain(_))));
        let place = Place::ca(SlotName::A);
        let foreign = founding().prepare(place, authority("spiffe://example.com"));
        assert!(matches!(read(&foreign.to_bytes()), Err(JournalError::Contradiction(_))));
        let mut moved = authority("spiffe://example.org");
        moved.not_after += 1;
        assert!(matches!(read(&founding().prepare(place, moved).to_bytes()), Err(JournalError::Contradiction(_))));
    }

    #[test]
    fn a_journal_is_one_servers_and_that_of_a_server_without_a_name_can_be_given_one() {
        let [one, two]: [ServerName; 2] = ["one", "two"].map(|name| name.parse().unwrap());
        let read = |journal: &Journal, server| Journal::from_bytes(&journal.to_bytes(), &trust_domain(), server);
        let named = read(&full(), &one).unwrap();
        assert_eq!((named.server(), full().server()), (one.clone(), ServerName::default()));
        assert_eq!(read(&named, &one).unwrap(), named);
        for other in [&two, &ServerName::default()] {
            assert!(matches!(read(&named, other), Err(JournalError::OtherServer { .. })), "{other}");
        }
    }

    #[test]
    fn a_purpose_that_is_newer_than_the_journal_has_empty_places() {
        let journal = full();
        let mut json: serde_json::Value = serde_json::from_slice(&journal.to_bytes()).unwrap();
        json["slots"].as_object_mut().unwrap().remove("x509-Root");
        assert_eq!(read(&serde_json::to_vec(&json).unwrap()).unwrap(), journal);
    }

    /// A row of table ca_journals that the server wrote before it signed JWT-SVIDs.
    #[test]
    fn a_journal_of_format_3_is_read_and_is_of_todays_format_from_then_on() {
        let stored = include_bytes!("format/fixtures/3-rooted.json");
        let journal = read(stored).unwrap();
        let (roots, cas) = (journal.slots(Purpose::Root), journal.slots(Purpose::X509Ca));
        assert!(roots.active().is_some() && cas.active().is_some(), "{journal:?}");
        assert_eq!(journal.slots(Purpose::Jwt), &Slots::default());
        let text = String::from_utf8(journal.to_bytes()).unwrap();
        assert!(text.contains("\"format\":7") && text.contains("JWT-Signer"), "{text}");
        assert_eq!(read(text.as_bytes()).unwrap(), journal);
    }

    /// Nothing was said of any authority before there were words for it.
    #[test]
    fn a_journal_of_format_4_is_read_and_is_of_todays_format_from_then_on() {
        let journal = full();
        let text = String::from_utf8(journal.to_bytes()).unwrap();
        assert!(!text.contains("verdict"), "{text}");
        let before = text.replace("\"format\":7", "\"format\":4");
        assert_eq!(read(before.as_bytes()).unwrap(), journal);
    }

    /// What format 5 does not have is left out of today's, too, where there is none of it.
    #[test]
    fn a_journal_of_format_5_is_read_and_one_below_another_authority_keeps_its_chain() {
        let journal = full();
        let text = String::from_utf8(journal.to_bytes()).unwrap();
        assert!(!text.contains("upstream"), "{text}");
        assert_eq!(read(text.replace("\"format\":7", "\"format\":5").as_bytes()).unwrap(), journal);
        let Credential::Certificate(above) = authority("spiffe://example.org").credential else { panic!("a CA's") };
        let upstream = Some(UpstreamChain::new([above]));
        let ca = Authority { upstream, ..authority("spiffe://example.org") };
        let journal = founding().prepare(Place::ca(SlotName::A), ca);
        assert_eq!(read(&journal.to_bytes()).unwrap(), journal);
    }

    /// What format 6 does not have is left out of today's, too, but for empty places.
    #[test]
    fn a_journal_of_format_6_is_read_and_one_with_keys_of_wit_svids_keeps_them() {
        let journal = full();
        let mut json: serde_json::Value = serde_json::from_slice(&journal.to_bytes()).unwrap();
        json["slots"].as_object_mut().unwrap().remove("WIT-Signer");
        json["format"] = 6.into();
        assert_eq!(read(&serde_json::to_vec(&json).unwrap()).unwrap(), journal);
        let Credential::JwtKey(key) = jwt_authority().credential else { panic!("a key") };
        let place = Place::wit(SlotName::A);
        let wit = Authority { credential: Credential::WitKey(key), ..jwt_authority() };
        let journal = full().prepare(place, wit).activate(place);
        assert_eq!(read(&journal.to_bytes()).unwrap(), journal);
    }

    #[test]
    fn a_damaged_jwt_key_is_refused() {
        let place = Place::jwt(SlotName::A);
        let text = String::from_utf8(founding().prepare(place, jwt_authority()).to_bytes()).unwrap();
        for (whole, damaged) in [("\"spki\":\"MFk", "\"spki\":\"AAA"), ("\"key_id\":\"", "\"key_id\":\"-")] {
            let damaged = text.replace(whole, damaged);
            assert_ne!(damaged, text);
            assert!(matches!(read(damaged.as_bytes()), Err(JournalError::Malformed(_))), "{damaged}");
        }
    }
}
