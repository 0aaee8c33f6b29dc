//! The bundles of other trust domains, for entries that ask for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use ironroot_api::TrustDomain;
use ironroot_api::pb::bundle::GetFederatedBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_shell::describe;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};
use tracing::{info, warn};

use super::{SyncError, Synchronizer};
use crate::federated_bundles::{FederatedBundles, MAX_FEDERATED};
use crate::server_answers::ForeignBundle;
use crate::server_channel::{Channel, RPC_DEADLINE, within};

/// Bundles asked for at the same time.
const AT_ONCE: usize = 4;
/// Longest that all of them together may take of a turn: on a slow link one that is large takes a call's whole time.
const ALTOGETHER: Duration = RPC_DEADLINE.saturating_mul(2);

/// Of a bundle that was not asked for any more, or not heard.
const NO_TIME_LEFT: &str = "no time was left for it: those asked for with it took too long";

/// What the server said of a trust domain.
enum Said {
    Bundle(Arc<ForeignBundle>),
    /// It has none.
    Nothing,
    /// Something that is not used, and why: what is held stays.
    Unusable(String),
    /// That it cannot say, and why: what is held stays, and it is asked again before long.
    Failed(String),
}

impl Synchronizer {
    /// Brings what is held to what entries ask for and the server has. One that nobody asks for any more is gone at once.
    //= WLA-04 SPIFFE Workload API 4.4: "MUST NOT be retained by a client after receiving a default or empty value for the fields"
    pub(super) async fn sync_federated(&mut self, channel: Channel) -> Result<(), SyncError> {
        let mut wanted = self.ledger.federates_with();
        wanted.remove(&self.parts.trust_domain);
        let asked: Vec<TrustDomain> = wanted.iter().take(MAX_FEDERATED).cloned().collect();
        let answers = asked.clone().into_iter().map(|trust_domain| ask(channel.clone(), trust_domain));
        let mut answers = stream::iter(answers).buffer_unordered(AT_ONCE);
        let (end, mut heard) = (Instant::now() + ALTOGETHER, BTreeMap::new());
        while let Ok(Some((trust_domain, said))) = timeout_at(end, answers.next()).await {
            heard.insert(trust_domain, said?);
        }
        drop(answers);
        let mut current = FederatedBundles::default();
        let (mut owed, mut unheard) = (false, BTreeMap::new());
        for trust_domain in asked {
            let said = heard.remove(&trust_domain).unwrap_or_else(|| Said::Failed(NO_TIME_LEFT.to_owned()));
            owed |= matches!(said, Said::Failed(_));
            let bundle = match said {
                Said::Bundle(bundle) => Some(bundle),
                Said::Unusable(why) | Said::Failed(why) => {
                    unheard.insert(trust_domain.clone(), why);
                    self.federated.get(&trust_domain).cloned()
                }
                Said::Nothing => None,
            };
            if bundle.is_some_and(|bundle| current.add(bundle)) {
                wanted.remove(&trust_domain);
            }
        }
        self.followed.owe_bundles(owed);
        self.told.unheard(unheard);
        self.told.lacking(wanted);
        self.adopt_federated(current);
        Ok(())
    }

    fn adopt_federated(&mut self, current: FederatedBundles) {
        if current == self.federated {
            return;
        }
        info!(bundles = current.len(), "bundles of other trust domains changed");
        self.federated = current;
        self.changes.any = true;
        self.changes.must_not_be_undone = true;
        self.publish();
    }
}

async fn ask(channel: Channel, trust_domain: TrustDomain) -> (TrustDomain, Result<Said, SyncError>) {
    let request = GetFederatedBundleRequest { trust_domain: trust_domain.as_str().to_owned(), output_mask: None };
    let answer = within(RPC_DEADLINE, BundleClient::new(channel).get_federated_bundle(request)).await;
    let said = match answer {
        Ok(answer) => Ok(match ForeignBundle::from_answer(answer.get_ref(), &trust_domain) {
            Ok(bundle) => Said::Bundle(Arc::new(bundle)),
            Err(refusal) => Said::Unusable(describe(&refusal)),
        }),
        // An older server has no such method.
        Err(status) if [Code::NotFound, Code::Unimplemented].contains(&status.code()) => Ok(Said::Nothing),
        Err(status) => unheard(status),
    };
    (trust_domain, said)
}

/// Of a call that brought no bundle. One that is larger than an agent takes, or than the link brings in time, or that the server cannot give, is
/// another trust domain's trouble: the rest of the turn, in which SVIDs are signed, goes on, and fails if nobody is there. A server that is away,
/// or says something of this agent, ends it.
fn unheard(status: Status) -> Result<Said, SyncError> {
    let (is_too_large, is_late) = (status.code() == Code::OutOfRange, status.code() == Code::DeadlineExceeded);
    let error = SyncError::from(status);
    if error.denial().is_some() || error.is_server_away() && !is_late {
        return Err(error);
    }
    let why = describe(&error);
    Ok(if is_too_large { Said::Unusable(why) } else { Said::Failed(why) })
}

/// Why bundles of other trust domains are not taken, or cannot be had, as it was said last.
#[derive(Debug, Default)]
pub(super) struct Unheard(BTreeMap<TrustDomain, String>);

impl Unheard {
    /// Of each once for each reason.
    pub(super) fn tell(&mut self, unheard: BTreeMap<TrustDomain, String>) {
        for (trust_domain, why) in unheard.iter().filter(|(of, why)| self.0.get(of) != Some(why)) {
            warn!(%trust_domain, error = why, "the bundle of another trust domain is not taken; the last good one stays");
        }
        self.0 = unheard;
    }
}

/// What has been said of trust domains whose bundles are asked for and not there.
#[derive(Debug, Default)]
pub(super) struct Lacking(BTreeSet<TrustDomain>);

impl Lacking {
    /// Once for each change.
    pub(super) fn tell(&mut self, lacking: BTreeSet<TrustDomain>) {
        if self.0 == lacking {
            return;
        }
        if let Some(first) = lacking.first() {
            let count = lacking.len();
            warn!(count, %first, "entries ask for bundles of other trust domains that the server does not give, or that do not fit");
        }
        self.0 = lacking;
    }
}
