//! What a WIT-SVID says. Pure: the time is an argument.

use ironroot_api::jwt::HolderKey;
use serde::Serialize;

use super::subject::WitSubject;
use crate::ca::WitPolicy;
use crate::ca::jwt::Lasting;

/// Lifetime of those whose entry or request does not say, seconds. Source: SPIRE `DefaultWITSVIDTTL`.
const TTL_SECONDS: i64 = 60 * 60;

/// The claims, in the order in which SPIRE writes them; times are whole UNIX seconds.
#[derive(Clone, Debug, Serialize)]
pub(in crate::ca) struct WitClaims {
    //= WIT-04 WIT-SVID 3.2: "The `cnf` claim MUST be present"
    cnf: Confirmation,
    exp: i64,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    //= WIT-05 WIT-SVID 3.1: "MUST be set to the SPIFFE ID of the workload to which it is issued."
    sub: String,
}

/// Who may use the token: whoever signs with this key. Source: RFC 7800 §3.2.
#[derive(Clone, Debug, Serialize)]
struct Confirmation {
    jwk: HolderKey,
}

impl WitClaims {
    /// For `subject` with that key, from `now_unix` on.
    pub(in crate::ca) fn new(subject: &WitSubject, holder: &HolderKey, policy: &WitPolicy, now_unix: i64) -> Self {
        let ttl_seconds = match subject.ttl_seconds {
            0 => TTL_SECONDS,
            seconds => i64::from(seconds),
        };
        Self {
            cnf: Confirmation { jwk: holder.clone() },
            exp: now_unix.saturating_add(ttl_seconds),
            iat: now_unix,
            iss: policy.issuer.clone(),
            sub: subject.id.as_str().to_owned(),
        }
    }
}

impl Lasting for WitClaims {
    fn times(&self) -> (i64, i64) {
        (self.iat, self.exp)
    }

    fn ending_by(self, not_after_unix: i64) -> Self {
        Self { exp: self.exp.min(not_after_unix), ..self }
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::SpiffeId;
    use ironroot_hsm::KeyKind;

    use super::*;

    //= WIT-04 WIT-05
    // The order is that of json.Marshal, which sorts a map's keys, of what SPIRE's BuildWorkloadWITSVIDClaims returns.
    #[test]
    fn claims_name_the_subject_and_its_key_and_nobody_else() {
        let key = rcgen::KeyPair::generate().unwrap();
        let holder = HolderKey::new(&rcgen::PublicKeyData::subject_public_key_info(&key), "ES256").unwrap();
        let subject =
            |ttl_seconds| WitSubject { id: SpiffeId::parse("spiffe://example.org/web").unwrap(), ttl_seconds };
        let policy = |issuer: Option<&str>| WitPolicy { issuer: issuer.map(str::to_owned), key_kind: KeyKind::EcP256 };
        let claims = WitClaims::new(&subject(0), &holder, &policy(None), 1_800_000_000);
        let json = serde_json::to_string(&claims).unwrap();
        let jwk = serde_json::to_string(&holder).unwrap();
        assert_eq!(
            json,
            format!(r#"{{"cnf":{{"jwk":{jwk}}},"exp":1800003600,"iat":1800000000,"sub":"spiffe://example.org/web"}}"#)
        );
        assert!(
            jwk.contains(r#""alg":"ES256""#) && jwk.contains(r#""crv":"P-256""#) && !jwk.contains(r#""d""#),
            "{jwk}"
        );
        let claims = WitClaims::new(&subject(60), &holder, &policy(Some("wit")), 1_800_000_000);
        assert_eq!((claims.times().1, claims.iss.as_deref()), (1_800_000_060, Some("wit")));
        assert_eq!(claims.ending_by(1_800_000_059).times().1, 1_800_000_059);
    }
}
