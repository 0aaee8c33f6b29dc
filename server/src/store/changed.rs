//! What a row of the change log names: which fact is not as it was.

use ironroot_api::{SpiffeId, TrustDomain};

/// A fact that was added, replaced or removed. What it is now is in its own table.
///
/// Join tokens are not among them: no memory mirrors them, and their names are secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Changed {
    /// The entry of that ID.
    Entry(String),
    /// The agent of that SPIFFE ID, its selectors included.
    Agent(SpiffeId),
    /// The device of that endorsement key's SHA-256, what it has booted, or what speaks against its chip.
    Device([u8; 32]),
    /// The policy of that name.
    PcrPolicy(String),
    /// The CA's journal: the log does not say what in it.
    CaJournal,
    /// Authorities of other tiers: the log does not say which.
    Tiers,
    /// The bundle of that other trust domain.
    Bundle(TrustDomain),
    /// Where that other trust domain shows its bundle.
    Relationship(TrustDomain),
    /// That the database is older than what was here before.
    OlderState,
}

impl Changed {
    /// The kind's name in the log. Names that have shipped are never given another meaning.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Entry(_) => "entry",
            Self::Agent(_) => "agent",
            Self::Device(_) => "device",
            Self::PcrPolicy(_) => "pcr_policy",
            Self::CaJournal => "ca",
            Self::Tiers => "tiers",
            Self::Bundle(_) => "bundle",
            Self::Relationship(_) => "relationship",
            Self::OlderState => "older_state",
        }
    }

    /// Which one of its kind: an entry's ID, an agent's SPIFFE ID, the hash of a device's key, a policy's or a trust domain's name; empty for
    /// the journal, for tiers and for an older state.
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Entry(id) => id.as_bytes(),
            Self::Agent(id) => id.as_str().as_bytes(),
            Self::Device(ek_sha256) => ek_sha256,
            Self::PcrPolicy(name) => name.as_bytes(),
            Self::CaJournal | Self::Tiers | Self::OlderState => &[],
            Self::Bundle(trust_domain) | Self::Relationship(trust_domain) => trust_domain.as_str().as_bytes(),
        }
    }

    /// What a row names. None for a kind that only a newer server knows, and for a key that names no fact of ours: nothing in
    /// our memory can be older than such a row.
    pub(super) fn from_row(kind: &str, key: &[u8]) -> Option<Self> {
        let text = || String::from_utf8(key.to_vec()).ok();
        let trust_domain = || text().and_then(|name| TrustDomain::new(&name).ok());
        match kind {
            "entry" => text().map(Self::Entry),
            "agent" => text().and_then(|id| SpiffeId::parse(&id).ok()).map(Self::Agent),
            "device" => key.try_into().ok().map(Self::Device),
            "pcr_policy" => text().map(Self::PcrPolicy),
            "ca" => Some(Self::CaJournal),
            "tiers" => Some(Self::Tiers),
            "older_state" => Some(Self::OlderState),
            "bundle" => trust_domain().map(Self::Bundle),
            "relationship" => trust_domain().map(Self::Relationship),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_log_names_what_was_written_into_it() {
        let agent = SpiffeId::parse("spiffe://td/spire/agent/a").expect("legal");
        let other = TrustDomain::new("other").expect("legal");
        let all = [
            Changed::Entry("e-1".into()),
            Changed::Agent(agent),
            Changed::Device([7; 32]),
            Changed::PcrPolicy("p".into()),
            Changed::CaJournal,
            Changed::Tiers,
            Changed::Bundle(other.clone()),
            Changed::Relationship(other),
            Changed::OlderState,
        ];
        for changed in all {
            assert_eq!(Changed::from_row(changed.kind(), changed.key()), Some(changed));
        }
        for (kind, key) in [
            ("start", &b""[..]),
            ("federation", b"x"),
            ("entry", b"\xff"),
            ("agent", b"a"),
            ("device", b"1"),
            ("bundle", b"A"),
            ("relationship", b""),
        ] {
            assert_eq!(Changed::from_row(kind, key), None, "{kind} {key:?}");
        }
    }
}
