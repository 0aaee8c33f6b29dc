//! The issuers whose tokens are taken, and what is asked of a token, in order.

use std::sync::Arc;

use ironroot_api::jwt::{Algorithm, UnverifiedIdToken};
use ironroot_api::tls::KeyExchanges;

use super::claims::selectors;
use super::judgement::{judge, told};
use super::keeper::{Keeper, Keys};
use super::policy::IssuerPolicy;
use super::proven::ProvenToken;
use super::refusal::TokenRefusal;

/// All issuers.
#[derive(Debug)]
pub struct Issuers {
    issuers: Vec<Issuer>,
}

#[derive(Debug)]
struct Issuer {
    policy: Arc<IssuerPolicy>,
    keys: Keys,
}

impl Issuers {
    /// Those of the configuration, and who keeps their keys current.
    pub fn new(policies: Vec<IssuerPolicy>, exchanges: KeyExchanges) -> (Self, Vec<Keeper>) {
        let each = policies.into_iter().map(Arc::new).map(|policy| {
            let (keeper, keys) = Keeper::new(policy.clone(), exchanges);
            (Issuer { policy, keys }, keeper)
        });
        let (issuers, keepers) = each.unzip();
        (Self { issuers }, keepers)
    }

    /// Has the token prove itself: what costs nothing is asked before its issuer's keys are looked for, and the signature is the last
    /// that anybody can make this server compute who has no token. `now`: the wall clock, UNIX seconds.
    pub async fn prove(&self, token: &str, now: fn() -> i64) -> Result<ProvenToken, TokenRefusal> {
        let unverified = UnverifiedIdToken::parse(token)?;
        let issuer = self.issuer(unverified.issuer())?;
        issuer.refuse_other_algorithms(unverified.algorithm())?;
        let keys = issuer.keys.with(unverified.key_id()).await?;
        let token = unverified.verify(&keys)?;
        let selectors = selectors(token.claims());
        judge(&issuer.policy, &token, &selectors, now())?;
        Ok(ProvenToken::new(&issuer.policy, selectors, &token))
    }

    //= EXC-01 OpenID Connect Core 3.1.3.7: "MUST exactly match the value of the `iss` (issuer) Claim"
    fn issuer(&self, url: &str) -> Result<&Issuer, TokenRefusal> {
        let known = self.issuers.iter().find(|issuer| issuer.policy.url == url);
        known.ok_or_else(|| TokenRefusal::UnknownIssuer(told(url)))
    }
}

impl Issuer {
    fn refuse_other_algorithms(&self, found: Algorithm) -> Result<(), TokenRefusal> {
        let allowed = &self.policy.algorithms;
        if allowed.contains(&found) {
            return Ok(());
        }
        let allowed: Vec<&str> = allowed.iter().map(|algorithm| algorithm.name()).collect();
        Err(TokenRefusal::Algorithm { found: found.name(), allowed: allowed.join(", ") })
    }
}
