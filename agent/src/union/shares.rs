//! Several servers' identities as one. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::sync::Arc;

use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_attest::Selector;

use crate::federated_bundles::FederatedBundles;
use crate::identities::{Identities, IdentitiesError, Identity};
use crate::report::Stands;
use crate::server_answers::{EntryTerms, TrustBundle};

/// One part in this many of an SVID's life is its last: by then it should have been replaced long since, so its server is away, and
/// another server's takes its place.
const LAST_PART: i64 = 4;

/// What one server gives.
#[derive(Clone, Debug)]
pub struct Share {
    /// What its loop has published.
    pub identities: Arc<Identities>,
    /// Its authorities as far as they are known otherwise, which count until it has published some.
    pub known: Option<Arc<TrustBundle>>,
    /// Whether it is known that it does not answer, or that it has nothing for this agent.
    pub is_away: bool,
}

/// Everything that may be served.
#[derive(Clone, Debug)]
pub struct United {
    /// Of all servers.
    pub identities: Identities,
    /// When another choice may be the better one though nothing changes, by the clock of [`Identities::ends`].
    pub again_at: Option<i64>,
}

/// Puts the shares together, in the order of the servers. `bundle`: the union of their authorities; `None` while no server and no
/// cache has said anything. Nothing but the bundle where one of the servers bans the agent (`is_banned`).
///
/// An entry that several servers have (one SPIFFE ID, the same selectors, the same hint) is served once: from the first of them whose
/// SVID is not in its last quarter, else from the one whose SVID lasts longest. The place among a workload's identities is that of
/// the least of their entry IDs, whichever is served. The others stand by.
pub fn unite(
    trust_domain: &TrustDomain,
    shares: &[Share],
    bundle: Option<Arc<TrustBundle>>,
    is_banned: bool,
    now: i64,
) -> Result<United, IdentitiesError> {
    let Some(bundle) = bundle.filter(|_| shares.iter().any(|share| share.identities.bundle().is_some())) else {
        return Ok(United { identities: Identities::starting(trust_domain.clone()), again_at: None });
    };
    let cast_out = if is_banned { Some(Stands::Banned) } else { cast_out_by_all(shares) };
    let shares = if is_banned { &[][..] } else { shares };
    let mut chosen: Vec<Chosen> = groups(shares).into_values().map(|group| choose(group, now)).collect();
    chosen.sort_by(|a, b| a.place.cmp(&b.place));
    let again_at = chosen.iter().filter_map(|chosen| chosen.again_at).min();
    let ends: BTreeMap<_, i64> =
        chosen.iter().filter_map(|it| Some((it.served.terms.key(), it.served.svid.as_ref()?.1))).collect();
    let (mut identities, mut unsigned, mut standbys) = (Vec::new(), Vec::new(), Vec::new());
    for Chosen { served, others, .. } in chosen {
        match served.svid {
            Some((identity, _)) => identities.push(identity),
            None => unsigned.push(served.terms),
        }
        standbys.extend(others);
    }
    let identities = Identities::in_order(trust_domain.clone(), identities, bundle)?
        .ending(|identity| ends.get(&identity.terms().key()).copied().unwrap_or(i64::MIN))
        .with_unsigned(unsigned)
        .with_standbys(standbys)
        .with_federated(federated(shares))
        .of_cast_out(cast_out)
        .partial(shares.iter().any(|share| share.identities.bundle().is_none() && !share.is_away));
    Ok(United { identities, again_at })
}

/// Where the agent stands with the first of the servers, if each of them has cast it out.
fn cast_out_by_all(shares: &[Share]) -> Option<Stands> {
    let each: Option<Vec<Stands>> = shares.iter().map(|share| share.identities.cast_out()).collect();
    each?.first().copied()
}

/// What makes two servers' entries the same to a workload.
type Same<'a> = (&'a SpiffeId, &'a [Selector], &'a str);

/// An entry of one server, and its X509-SVID with its end, if it has one.
struct Candidate {
    terms: Arc<EntryTerms>,
    svid: Option<(Arc<Identity>, i64)>,
    is_away: bool,
}

struct Chosen {
    /// The least entry ID of the group.
    place: String,
    served: Candidate,
    others: Vec<Arc<EntryTerms>>,
    again_at: Option<i64>,
}

/// Each group in the order of the servers.
fn groups(shares: &[Share]) -> BTreeMap<Same<'_>, Vec<Candidate>> {
    let mut groups: BTreeMap<Same<'_>, Vec<Candidate>> = BTreeMap::new();
    for share in shares {
        let signed = share.identities.ends().map(|(identity, end)| (identity.terms(), Some((identity.clone(), end))));
        let unsigned = share.identities.unsigned().map(|terms| (terms, None));
        for (terms, svid) in signed.chain(unsigned) {
            let candidate = Candidate { terms: terms.clone(), svid, is_away: share.is_away };
            groups.entry(same(terms)).or_default().push(candidate);
        }
    }
    groups
}

fn same(terms: &EntryTerms) -> Same<'_> {
    (&terms.spiffe_id, terms.selectors.iter().as_slice(), &terms.hint)
}

fn choose(mut group: Vec<Candidate>, now: i64) -> Chosen {
    let place = group.iter().map(|one| one.terms.id.clone()).min().unwrap_or_default();
    let best = (0..group.len()).min_by_key(|nth| (group[*nth].rank(now), *nth)).unwrap_or_default();
    //= FLT-A28 agent faults: "what the others have entries for is served without a gap"
    let served = group.remove(best);
    let again_at = if group.is_empty() { None } else { served.again_at(now) };
    Chosen { place, again_at, served, others: group.into_iter().map(|one| one.terms).collect() }
}

impl Candidate {
    /// The least is served: SVIDs that were replaced in time are equal, then what lasts longest, then what is not signed yet, where
    /// the server is there to sign it.
    fn rank(&self, now: i64) -> (u8, i64) {
        match &self.svid {
            Some(_) if self.last_part().is_some_and(|from| now < from) => (0, 0),
            Some((_, end)) if now < *end => (1, end.saturating_neg()),
            None if !self.is_away => (2, 0),
            None => (3, 0),
            Some((_, end)) => (4, end.saturating_neg()),
        }
    }

    fn again_at(&self, now: i64) -> Option<i64> {
        let end = self.svid.as_ref()?.1;
        [self.last_part()?, end].into_iter().find(|at| now < *at)
    }

    /// From when on its last quarter runs.
    fn last_part(&self) -> Option<i64> {
        let (identity, end) = self.svid.as_ref()?;
        Some(end.saturating_sub(identity.svid().lifetime().span().length() / LAST_PART))
    }
}

/// Other trust domains' bundles: of each the one of the first server that answers, else of the first that has it. No two are put
/// together.
fn federated(shares: &[Share]) -> FederatedBundles {
    let mut all = FederatedBundles::default();
    let (there, away): (Vec<&Share>, Vec<&Share>) = shares.iter().partition(|share| !share.is_away);
    for bundle in there.into_iter().chain(away).flat_map(|share| share.identities.federated().iter()) {
        // What does not fit is as if its server had not given it; each server's own were bounded alike.
        let _ = all.get(bundle.trust_domain()).is_some() || all.add(bundle.clone());
    }
    all
}

#[cfg(test)]
mod tests;
