//! What was taken over, and what was not and why.

use std::fmt;

use ironroot_shell::command_line::counted;
use serde::Serialize;

/// What was taken over, and what was not and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "counts of what they name")]
pub struct Report {
    /// Whether it was only looked at.
    pub dry_run: bool,
    /// What SPIRE calls the version that wrote the database last.
    pub spire_version: String,
    pub schema_version: i64,
    pub trust_domain: String,
    pub federated_bundles: usize,
    pub federation_relationships: usize,
    pub entries: usize,
    pub agents: usize,
    /// Of those, how many are banned.
    pub banned_agents: usize,
    pub join_tokens: usize,
    /// In the bundle.
    pub x509_authorities: usize,
    /// In the bundle.
    pub jwt_authorities: usize,
    /// In the bundle.
    pub wit_authorities: usize,
    pub keys: KeysTaken,
    /// What stays behind.
    pub left_behind: Vec<LeftBehind>,
}

/// What became of the keys that sign.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum KeysTaken {
    /// They sign here, from this file.
    Imported {
        /// The file of KeyManager "disk".
        path: String,
        /// Their IDs.
        ids: Vec<String>,
    },
    /// No key manager of the configuration can hold them: what they signed stays good, and a new CA signs from the first start on.
    #[default]
    VerifiedOnly,
}

/// Something of SPIRE's that does not come along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftBehind {
    /// What it is.
    pub what: What,
    /// What SPIRE calls it.
    pub name: String,
    /// In words.
    pub why: String,
}

/// What stays behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "SPIRE's nouns")]
pub enum What {
    Entry,
    Agent,
    /// The agent came along; what it can do here is less.
    AgentAttestation,
    JoinToken,
    X509Authority,
    JwtAuthority,
    WitAuthority,
    Key,
    FederatedBundle,
    FederationRelationship,
    CaJournal,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entry => "entry",
            Self::Agent => "agent",
            Self::AgentAttestation => "attestation of agent",
            Self::JoinToken => "join token",
            Self::X509Authority => "X.509 authority",
            Self::JwtAuthority => "JWT authority",
            Self::WitAuthority => "WIT authority",
            Self::Key => "key",
            Self::FederatedBundle => "bundle of trust domain",
            Self::FederationRelationship => "federation relationship with",
            Self::CaJournal => "CA journal",
        })
    }
}

impl Report {
    pub(super) fn leave(&mut self, what: What, name: impl Into<String>, why: impl Into<String>) {
        self.left_behind.push(LeftBehind { what, name: name.into(), why: why.into() });
    }
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.dry_run { "Would take over" } else { "Taken over" };
        writeln!(
            f,
            "{verb} from SPIRE {} (schema version {}), trust domain {}:",
            self.spire_version, self.schema_version, self.trust_domain
        )?;
        writeln!(f, "  {}", counted(self.entries, "entry", "entries"))?;
        writeln!(f, "  {}", counted(self.agents, "agent", "agents"))?;
        writeln!(f, "  {}", counted(self.join_tokens, "join token", "join tokens"))?;
        if self.federated_bundles + self.federation_relationships > 0 {
            let bundles = counted(self.federated_bundles, "other trust domain", "other trust domains");
            let relationships =
                counted(self.federation_relationships, "federation relationship", "federation relationships");
            writeln!(f, "  bundles of {bundles}, and {relationships}")?;
        }
        if self.banned_agents > 0 {
            writeln!(f, "  of the agents {} banned", self.banned_agents)?;
        }
        writeln!(
            f,
            "  {} and {} of the bundle",
            counted(self.x509_authorities, "X.509 authority", "X.509 authorities"),
            counted(self.jwt_authorities, "JWT authority", "JWT authorities")
        )?;
        if self.wit_authorities > 0 {
            writeln!(f, "  {} of the bundle", counted(self.wit_authorities, "WIT authority", "WIT authorities"))?;
        }
        match &self.keys {
            KeysTaken::Imported { path, ids } => {
                let done = if self.dry_run { "would be copied" } else { "were copied" };
                writeln!(f, "  keys that sign: {} {done} to {path}; agents notice nothing", ids.join(", "))?;
            }
            KeysTaken::VerifiedOnly => writeln!(
                f,
                "  no keys: the configuration has no KeyManager \"disk\". What SPIRE signed stays good; a new CA signs from the first start on, and \
                 agents that are running do not know it: give them the new bundle, or configure KeyManager \"disk\" with previous = true \
                 beside the other key manager, and none of them notices"
            )?,
        }
        if self.left_behind.is_empty() {
            return writeln!(f, "Nothing is left behind.");
        }
        writeln!(f, "Left behind ({}):", self.left_behind.len())?;
        self.left_behind.iter().try_for_each(|left| writeln!(f, "  {} {}: {}", left.what, left.name, left.why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_kind_is_told_as_one() {
        let one = Report {
            entries: 1,
            agents: 1,
            join_tokens: 1,
            federated_bundles: 1,
            federation_relationships: 1,
            x509_authorities: 1,
            jwt_authorities: 2,
            wit_authorities: 1,
            ..Report::default()
        };
        let told = one.to_string();
        for line in [
            "  1 entry\n  1 agent\n  1 join token\n",
            "  bundles of 1 other trust domain, and 1 federation relationship\n",
            "  1 X.509 authority and 2 JWT authorities of the bundle\n  1 WIT authority of the bundle\n",
        ] {
            assert!(told.contains(line), "{line:?}: {told}");
        }
    }
}
