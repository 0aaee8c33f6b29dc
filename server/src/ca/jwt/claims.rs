//! What a JWT-SVID says. Pure: time and randomness are arguments.

use ironroot_api::jwt::SvidClaims;
use serde::Serialize;

use super::audience::Audience;
use super::signer::Lasting;
use super::subject::JwtSubject;
use crate::ca::JwtPolicy;

/// The claims of a JWT-SVID by this server's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(in crate::ca) struct Claims(SvidClaims);

impl Claims {
    /// For `subject`, from `now_unix` on for as long as the subject or the policy says. `token_id`: 16 random bytes, which become the
    /// token's ID if the subject wants one.
    pub(in crate::ca) fn new(
        subject: &JwtSubject,
        audience: &Audience,
        policy: &JwtPolicy,
        now_unix: i64,
        token_id: [u8; 16],
    ) -> Self {
        let ttl_seconds = match subject.ttl_seconds {
            0 => policy.svid_ttl_seconds,
            seconds => i64::from(seconds),
        };
        let span = (now_unix, now_unix.saturating_add(ttl_seconds).min(subject.ends_by));
        let token_id = subject.has_token_id.then_some(token_id);
        Self(SvidClaims::new(&subject.id, audience.recipients(), policy.issuer.as_deref(), span, token_id))
    }
}

impl Lasting for Claims {
    fn times(&self) -> (i64, i64) {
        (self.0.iat, self.0.exp)
    }

    //= JWT-12 RFC 7519 4.1: "no token outlives the key that signed it"
    fn ending_by(self, not_after_unix: i64) -> Self {
        Self(self.0.ending_by(not_after_unix))
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::{SpiffeId, TrustDomain};
    use ironroot_hsm::KeyKind;

    use super::*;

    fn subject(ttl_seconds: u32, has_token_id: bool) -> JwtSubject {
        let id = SpiffeId::parse("spiffe://example.org/web").unwrap();
        let minted = JwtSubject::of_id(id, &TrustDomain::new("example.org").unwrap(), ttl_seconds).unwrap();
        JwtSubject { has_token_id, ..minted }
    }

    fn policy(issuer: Option<&str>) -> JwtPolicy {
        JwtPolicy { issuer: issuer.map(str::to_owned), svid_ttl_seconds: 300, key_kind: KeyKind::EcP256 }
    }

    fn claims(subject: &JwtSubject, issuer: Option<&str>) -> Claims {
        let audience = Audience::parse(vec!["b".to_owned(), "a".to_owned()]).unwrap();
        Claims::new(subject, &audience, &policy(issuer), 1_800_000_000, [0xff; 16])
    }

    //= JWT-05
    // Vectors: json.Marshal of what SPIRE's BuildWorkloadJWTSVIDClaims returns; a map's keys are sorted.
    #[test]
    fn claims_are_byte_for_byte_those_of_spire() {
        let json = |claims: &Claims| serde_json::to_string(claims).unwrap();
        assert_eq!(
            json(&claims(&subject(0, false), None)),
            r#"{"aud":["b","a"],"exp":1800000300,"iat":1800000000,"sub":"spiffe://example.org/web"}"#
        );
        assert_eq!(
            json(&claims(&subject(60, true), Some("https://oidc.example.org"))),
            r#"{"aud":["b","a"],"exp":1800000060,"iat":1800000000,"iss":"https://oidc.example.org","jti":"_____________________w","sub":"spiffe://example.org/web"}"#
        );
    }

    #[test]
    fn no_token_ends_later_than_its_subject_may_have_one() {
        for (ends_by, exp) in [(1_800_000_007, 1_800_000_007), (1_800_000_301, 1_800_000_300)] {
            assert_eq!(claims(&subject(0, false).ending_by(ends_by), None).0.exp, exp);
        }
    }

    //= JWT-12
    #[test]
    fn no_token_outlives_the_key_that_signs_it() {
        for (not_after, exp) in [(1_800_000_299, 1_800_000_299), (1_800_000_301, 1_800_000_300)] {
            assert_eq!(claims(&subject(0, false), None).ending_by(not_after).0.exp, exp);
        }
    }
}
