//! Whether a token whose signature is good is for this server, now, and says what it must. Pure: the time is an argument.

use ironroot_api::jwt::{IdToken, LEEWAY};
use ironroot_attest::SelectorSet;

use super::policy::IssuerPolicy;
use super::refusal::TokenRefusal;

/// Longest a token may still last, seconds: a day, which is the longest that a CI job runs. How long used tokens are remembered hangs on it.
pub(super) const MAX_LIFETIME_SECONDS: i64 = 24 * 3600;
/// How much of a list that somebody else made an error tells.
pub(super) const MAX_TOLD: usize = 8;
/// How much of a text of theirs, characters.
const MAX_TOLD_CHARACTERS: usize = 256;

/// Holds `token`, which says `selectors`, against the policy of its issuer.
pub(super) fn judge(
    policy: &IssuerPolicy,
    token: &IdToken,
    selectors: &SelectorSet,
    now_unix: i64,
) -> Result<(), TokenRefusal> {
    judge_times(token, now_unix)?;
    judge_audience(policy, token)?;
    match policy.required.iter().find(|required| !selectors.contains(required)) {
        Some(missing) => Err(TokenRefusal::MissingClaim(missing.clone())),
        None => Ok(()),
    }
}

/// No leeway at the end: what is issued for the token ends with it.
fn judge_times(token: &IdToken, now_unix: i64) -> Result<(), TokenRefusal> {
    let left = token.expires_at().saturating_sub(now_unix);
    if left <= 0 {
        return Err(TokenRefusal::Expired);
    }
    if left > MAX_LIFETIME_SECONDS {
        return Err(TokenRefusal::LastsTooLong(left));
    }
    let is_later = |time: Option<i64>| time.is_some_and(|time| now_unix.saturating_add(LEEWAY) < time);
    match token.begins().map(is_later) {
        [true, _] => Err(TokenRefusal::NotYet),
        [_, true] => Err(TokenRefusal::FromTheFuture),
        [false, false] => Ok(()),
    }
}

//= EXC-02 OpenID Connect Core 3.1.3.7: "or if it contains additional audiences not trusted by the Client"
fn judge_audience(policy: &IssuerPolicy, token: &IdToken) -> Result<(), TokenRefusal> {
    let is_ours = |audience: &String| policy.audience.contains(audience);
    if !token.audience().iter().any(is_ours) {
        let found = token.audience().iter().take(MAX_TOLD).map(|audience| told(audience)).collect();
        return Err(TokenRefusal::OtherAudience { expected: policy.audience.clone().into(), found });
    }
    match token.audience().iter().find(|audience| !is_ours(audience)) {
        Some(further) => Err(TokenRefusal::FurtherAudience(told(further))),
        None => Ok(()),
    }
}

/// The beginning of a text that somebody else chose, for an error.
pub(super) fn told(text: &str) -> String {
    text.chars().take(MAX_TOLD_CHARACTERS).collect()
}
