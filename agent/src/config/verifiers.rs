//! What those are told who verify SVIDs of others: SPIRE's `allowed_foreign_jwt_claims` and `allow_unauthenticated_verifiers`.

use ironroot_shell::settings::Section;

use super::VerifierPolicy;

/// Reads the keys.
pub(super) fn read(agent: &Section<'_>) -> VerifierPolicy {
    let foreign_claims = agent.parsed_list("allowed_foreign_jwt_claims", claim).unwrap_or_default();
    let without_identity = agent.boolean("allow_unauthenticated_verifiers").unwrap_or(false);
    VerifierPolicy { foreign_claims: foreign_claims.into_iter().collect(), without_identity }
}

fn claim(name: &str) -> Result<String, &'static str> {
    if name.is_empty() { Err("no claim has this name: give one such as \"email\"") } else { Ok(name.to_owned()) }
}
