//! What a JWT-SVID says, read but not believed.

use serde_json::{Map, Value};

use super::refusal::JwtRefusal;
use crate::SpiffeId;

/// How far clocks of those who sign and those who verify may differ, seconds. Source: SPIRE.
pub const LEEWAY: i64 = 60;
/// Last second of the year 9999, UNIX seconds: no date in a token is later.
const LATEST: i64 = 253_402_300_799;

/// The registered claims, and all of them as they are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claims {
    pub subject: SpiffeId,
    /// Empty if the token has none.
    pub audience: Vec<String>,
    pub expires_at: i64,
    pub not_before: Option<i64>,
    pub issued_at: Option<i64>,
    pub all: Map<String, Value>,
}

impl Claims {
    pub fn read(all: Map<String, Value>) -> Result<Self, JwtRefusal> {
        let subject = all.get("sub").and_then(Value::as_str).filter(|text| !text.is_empty());
        //= JWT-05 JWT-SVID 3.1: "The `sub` claim MUST be set to the SPIFFE ID of the workload to which it is issued."
        let subject = SpiffeId::parse(subject.ok_or(JwtRefusal::NoSubject)?).map_err(JwtRefusal::Subject)?;
        //= JWT-07 JWT-SVID 3.3: "The `exp` claim MUST be set, and validators MUST reject tokens without this claim."
        let expires_at = date(&all, "exp")?.ok_or(JwtRefusal::NoExpiry)?;
        let (not_before, issued_at) = (date(&all, "nbf")?, date(&all, "iat")?);
        Ok(Self { subject, audience: audience(&all)?, expires_at, not_before, issued_at, all })
    }
}

/// A NumericDate, which may have a fraction. Source: RFC 7519 §2.
pub(super) fn date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, JwtRefusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    // Beyond 2^53 a float is far beyond the year 9999: nothing is lost that is not refused.
    let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds.floor() as i64));
    let seconds = seconds.filter(|seconds| (0..=LATEST).contains(seconds));
    seconds.map(Some).ok_or(JwtRefusal::Date(name))
}

/// One text or a list of them. Source: RFC 7519 §4.1.3.
pub(super) fn audience(claims: &Map<String, Value>) -> Result<Vec<String>, JwtRefusal> {
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or(JwtRefusal::Audience);
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(text).collect(),
        Some(value) => Ok(vec![text(value)?]),
    }
}
