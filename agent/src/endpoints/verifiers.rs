//! What those are told who verify SVIDs of others.

use std::collections::BTreeSet;

/// Claims of a token of another trust domain that are always told. Source: SPIRE.
const TOLD_ANYWAY: [&str; 3] = ["sub", "exp", "aud"];

/// See the module. The default is SPIRE's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifierPolicy {
    /// Claims of valid tokens of other trust domains that are told besides `sub`, `exp` and `aud`: what else stands in there their
    /// servers alone have decided. Of the own trust domain's tokens all are told.
    pub foreign_claims: BTreeSet<String>,
    /// Whether callers of the Workload API that have no entry are told the own trust domain's bundle.
    pub without_identity: bool,
}

impl VerifierPolicy {
    /// Whether this claim of a token of another trust domain is told.
    pub(super) fn tells_foreign(&self, claim: &str) -> bool {
        TOLD_ANYWAY.contains(&claim) || self.foreign_claims.contains(claim)
    }
}
