//! What the operator decides about the CA.

use ironroot_api::TrustDomain;
use ironroot_hsm::{KeyKind, KeyName};

use super::purpose::Purpose;
use super::rotation::Pace;
use super::server_name::ServerName;

/// What the operator decides about the CA.
#[derive(Clone, Debug)]
pub struct CaPolicy {
    /// Whether an operator has accepted that the journal is older than the token: keys that it does not know give way.
    pub accepts_older_journal: bool,
    /// The trust domain it signs for.
    pub trust_domain: TrustDomain,
    /// Which of the servers of the trust domain this is.
    pub server: ServerName,
    /// Keys that the HSM's administrator has made, in the order in which they are used; none: the CA makes its keys.
    pub given_keys: Vec<KeyName>,
    /// What kind of key the next root and the next CA have.
    pub key_kind: KeyKind,
    /// Subject of CA certificates; a serial number is added to each.
    pub subject: CaSubject,
    /// Lifetime of a CA certificate, seconds.
    pub ca_ttl_seconds: i64,
    /// Lifetime of the root above the CAs, seconds; without one each CA signs itself.
    pub root_ttl_seconds: Option<i64>,
    /// Lifetime of agents' SVIDs, seconds.
    pub agent_ttl_seconds: i64,
    /// Lifetime of the server's SVIDs, and of workloads' whose entry does not say, seconds.
    pub x509_svid_ttl_seconds: i64,
    /// Whether the subjects of workloads' SVIDs have a unique identifier.
    pub unique_ids: bool,
    /// Of JWT-SVIDs; none: this server signs none. Their keys live as long as CAs.
    pub jwt: Option<JwtPolicy>,
    /// Of WIT-SVIDs, likewise.
    pub wit: Option<WitPolicy>,
}

/// What the operator decides about JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtPolicy {
    /// The `iss` of each; none: they have none.
    pub issuer: Option<String>,
    /// Lifetime of those whose entry or request does not say, seconds.
    pub svid_ttl_seconds: i64,
    /// What kind of key the next one is; it says the algorithm.
    pub key_kind: KeyKind,
}

/// What the operator decides about WIT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitPolicy {
    /// The `iss` of each; none: they have none.
    pub issuer: Option<String>,
    /// What kind of key the next one is; it says the algorithm.
    pub key_kind: KeyKind,
}

impl CaPolicy {
    /// What is renewed, and when; who signs others comes first.
    pub fn paces(&self) -> Vec<Pace> {
        let root = self.root_ttl_seconds.map(|_| Pace::of_the_root(self.ca_ttl_seconds));
        let jwt = self.jwt.as_ref().map(|_| Pace::of_signers(Purpose::Jwt));
        let wit = self.wit.as_ref().map(|_| Pace::of_signers(Purpose::Wit));
        root.into_iter().chain([Pace::of_signers(Purpose::X509Ca)]).chain(jwt).chain(wit).collect()
    }

    /// What kind of key is made for a purpose.
    pub(super) fn key_kind(&self, purpose: Purpose) -> KeyKind {
        match purpose {
            Purpose::Root | Purpose::X509Ca => self.key_kind,
            Purpose::Jwt => self.jwt.as_ref().map(|jwt| jwt.key_kind).unwrap_or_default(),
            Purpose::Wit => self.wit.as_ref().map(|wit| wit.key_kind).unwrap_or_default(),
        }
    }

    /// What is not renewed: nobody wants it.
    pub(super) fn unwanted(&self) -> impl Iterator<Item = Purpose> {
        let paces = self.paces();
        Purpose::ALL.into_iter().filter(move |purpose| paces.iter().all(|pace| pace.purpose != *purpose))
    }
}

/// Subject of CA certificates; at least one part is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaSubject {
    /// Countries, two letters each.
    pub country: Vec<String>,
    /// The O of the subject, one for each.
    pub organization: Vec<String>,
    /// The CN of the subject.
    pub common_name: Option<String>,
}
