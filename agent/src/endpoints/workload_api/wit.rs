//! WIT-SVIDs and the keys that verify them. Source: SPIFFE_Workload_API.md §7.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ironroot_api::SpiffeId;
use ironroot_api::jwt::private_jwk;
use ironroot_api::pb::workload::{WitBundlesResponse, Witsvid, WitsvidResponse};
use tonic::Status;

use crate::endpoints::serving::{NEVER, Question, Seen};
use crate::identities::Identity;
use crate::server_answers::{TrustBundle, Wit};

/// The answer to a workload whose X509-SVID is there, and whose WIT-SVID is not.
const NOT_SIGNED: &str =
    "the WIT-SVID of this workload could not be signed yet: the server must have WIT-SVIDs switched on";

/// What FetchWITSVID asks: for all identities, or for the one that is named.
pub(super) struct WitSvids {
    pub wanted: Option<SpiffeId>,
}

/// What FetchWITBundles asks.
pub(super) struct WitBundles;

impl Question for WitSvids {
    type Answer = WitsvidResponse;
    type View = Vec<Arc<Identity>>;
    const METHOD: &'static str = "FetchWITSVID";
    const WHAT: &'static str = "WIT-SVIDs";

    fn view(&self, seen: &Seen<'_>) -> Result<(Self::View, Duration), Status> {
        let svids_last = seen.svids_last()?;
        let mut theirs = seen.identities();
        theirs.retain(|identity| self.wanted.as_ref().is_none_or(|wanted| identity.spiffe_id() == wanted));
        if theirs.is_empty() {
            return Err(self.wanted.as_ref().map_or_else(|| seen.no_identity(), |named| seen.not_this_identity(named)));
        }
        let left = |identity: &Arc<Identity>| left(seen, identity);
        let lasting: Vec<(Arc<Identity>, u64)> =
            theirs.into_iter().filter_map(|identity| left(&identity).map(|left| (identity, left))).collect();
        let first_end = lasting.iter().map(|(_, left)| *left).min().ok_or_else(|| Status::unavailable(NOT_SIGNED))?;
        let theirs = lasting.into_iter().map(|(identity, _)| identity).collect();
        Ok((theirs, svids_last.min(Duration::from_secs(first_end))))
    }

    fn is_same(&self, sent: &Self::View, now: &Self::View) -> bool {
        sent.len() == now.len() && sent.iter().zip(now).all(|(sent, now)| sent.looks_like(now))
    }

    fn answer(&mut self, view: &Self::View) -> WitsvidResponse {
        WitsvidResponse { svids: view.iter().filter_map(|identity| svid(identity)).collect() }
    }
}

impl Question for WitBundles {
    type Answer = WitBundlesResponse;
    type View = Arc<TrustBundle>;
    const METHOD: &'static str = "FetchWITBundles";
    const WHAT: &'static str = "WIT bundles";

    fn wants_svids(&self) -> bool {
        false
    }

    fn view(&self, seen: &Seen<'_>) -> Result<(Self::View, Duration), Status> {
        let lasts = if seen.are_bundles_for_all()? { NEVER } else { seen.entries_last()? };
        Ok((seen.own.clone(), lasts))
    }

    /// Workloads do not see taints.
    fn is_same(&self, sent: &Self::View, now: &Self::View) -> bool {
        sent.wit_authorities().wit_jwks() == now.wit_authorities().wit_jwks()
    }

    /// Its own trust domain's alone: bundles of others come without such keys.
    fn answer(&mut self, view: &Self::View) -> WitBundlesResponse {
        let own = (view.trust_domain().id().to_string(), view.wit_authorities().wit_jwks());
        WitBundlesResponse { bundles: HashMap::from([own]) }
    }
}

/// Seconds that its WIT-SVID lasts, by what the server says that signed it; `None` if it has ended, or is of a key that the bundle no
/// longer has.
fn left(seen: &Seen<'_>, identity: &Identity) -> Option<u64> {
    let wit = identity.svid().wit()?;
    seen.own.wit_authorities().find(wit.key_id())?;
    let moment = seen.serving.jwt().moment_of(identity.terms().server);
    u64::try_from(moment.remaining(wit.lifetime())).ok().filter(|left| *left > 0)
}

fn svid(identity: &Identity) -> Option<Witsvid> {
    let wit: &Wit = identity.svid().wit()?;
    let jwk = private_jwk(identity.key().pkcs8_der())?;
    Some(Witsvid {
        spiffe_id: identity.spiffe_id().to_string(),
        wit_svid: wit.token().to_owned(),
        wit_svid_key: jwk.as_str().to_owned(),
        hint: identity.hint().to_owned(),
    })
}
