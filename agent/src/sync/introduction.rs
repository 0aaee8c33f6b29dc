//! By what the server is known that is asked without a certificate: the last good bundle, or one that the operator has placed since.
//!
//! ```text
//!  no bundle yet ─────────────────────────────────────────► the configured one (a file, a web server, another agent)
//!  at each attestation ───────────────────────────────────► the last good bundle, and the configured one in turns
//!  the server is not believed by the last good bundle ────► the configured one, if it is newer
//!    and that for rebootstrap_delay ──────────────────────► the configured one, whatever its age (distrust.rs)
//! ```
//! A configured bundle counts beside one that is held only if it has an authority that began after every authority of any bundle that
//! was held: an older one would bring back what was revoked since. With `rebootstrap_mode` the operator says that what is configured
//! is kept up to date. What it replaces is held until the server that it proves has let the agent in.

use std::sync::Arc;

use ironroot_shell::describe;
use tracing::{debug, info, warn};

use super::{SyncError, Synchronizer};
use crate::bundle_source::Occasion;
use crate::config::Bootstrap;
use crate::server_answers::TrustBundle;
use crate::server_channel::{Channel, Doubt};
use crate::trusted_time::utc;

/// See the module.
#[derive(Clone, Debug)]
pub(super) enum Introduction {
    /// The last good bundle, or the first one. `None` for an agent that knows no bundle at all, and was told to believe whoever
    /// answers.
    Known(Option<Arc<TrustBundle>>),
    /// A newer one than any that was held.
    Placed(Arc<TrustBundle>),
}

impl Introduction {
    fn bundle(&self) -> Option<&Arc<TrustBundle>> {
        match self {
            Self::Known(bundle) => bundle.as_ref(),
            Self::Placed(bundle) => Some(bundle),
        }
    }
}

impl Synchronizer {
    /// What proves the server at an attestation. After a long absence every authority may have been replaced since, and the operator
    /// may have placed the new ones.
    pub(super) async fn introduction(&mut self) -> Result<Introduction, SyncError> {
        let Some(held) = self.bundle.clone() else { return Ok(Introduction::Known(self.configured_bundle().await?)) };
        let is_its_turn = !self.failures.is_multiple_of(2) && self.is_another_worth_asking_for();
        let placed = if is_its_turn { self.placed_bundle().await } else { None };
        Ok(placed.map_or(Introduction::Known(Some(held)), Introduction::Placed))
    }

    /// A file costs nothing; others are asked only if the server that answers is not believed.
    fn is_another_worth_asking_for(&self) -> bool {
        let Bootstrap::TrustBundle(source) = &self.parts.bootstrap else { return false };
        source.is_a_file() || self.distrust.is_on()
    }

    /// The configured bundle, if it is newer than all that was held, or if the server has not been believed for long enough. If it is not taken
    /// for that reason, says so once for each.
    pub(super) async fn placed_bundle(&mut self) -> Option<Arc<TrustBundle>> {
        let configured = match self.configured_bundle().await {
            Ok(configured) => configured?,
            Err(error) => {
                let error = describe(&error);
                debug!(error, "no other bundle");
                if self.distrust.is_on() {
                    self.told.no_other_bundle(error);
                }
                return None;
            }
        };
        self.told.another_bundle_is_there();
        if configured.began_after(self.newest_authority) {
            return Some(configured);
        }
        if self.bundle.as_ref() == Some(&configured) {
            return None;
        }
        let (may_attest_again, now) = (self.may_attest_again(), self.parts.time.now_unix());
        if self.distrust.is_over(may_attest_again, now) {
            self.distrust.tell_that_it_is_over();
            return Some(configured);
        }
        if self.distrust.is_on() && !self.distrust.will_be_over(may_attest_again) {
            self.told.placed_is_older(configured.newest_not_before(), self.newest_authority);
        }
        None
    }

    /// Whoever is not the server that the agent knows has answered.
    pub(super) fn disbelieve(&mut self) {
        let now = self.parts.time.now_unix();
        self.changes.any |= self.distrust.begin(now);
        self.distrust.tell(self.bundle.is_some(), self.may_attest_again(), now);
    }

    /// The server is believed.
    pub(super) fn believe(&mut self) {
        self.changes.any |= self.distrust.end();
    }

    /// Whether another attestation may bring another certificate: also for an agent that has none any more.
    fn may_attest_again(&self) -> bool {
        self.standing.agent().is_none_or(|agent| agent.reattestable)
    }

    /// What is found there now; `None` if the operator has named no place.
    async fn configured_bundle(&mut self) -> Result<Option<Arc<TrustBundle>>, SyncError> {
        let (began_unix, attempts) = self.distrust.seek(self.parts.time.now_unix());
        let Bootstrap::TrustBundle(source) = &self.parts.bootstrap else { return Ok(None) };
        let occasion = Occasion {
            trust_domain: &self.parts.trust_domain,
            server: self.parts.server.host_and_port(),
            is_rebootstrap: self.bundle.is_some(),
            attempts,
            began_unix,
            time: &self.parts.time,
            exchanges: self.parts.server.exchanges(),
        };
        if !source.is_a_file() {
            info!(source = source.to_string(), attempts, since = utc(began_unix), "asking for a trust bundle");
        }
        match source.bundle(&occasion).await {
            Ok(bundle) => {
                let bundle = Arc::new(bundle);
                self.configured = self.bundle.is_none().then(|| bundle.clone());
                Ok(Some(bundle))
            }
            Err(error) => Err(SyncError::Bootstrap { from: source.to_string(), source: Box::new(error) }),
        }
    }

    /// A channel to the server that `introduction` proves, and the bundle that becomes the agent's once it has attested there; `None`
    /// if it is the agent's already.
    pub(super) async fn introduced(
        &mut self,
        introduction: Introduction,
    ) -> Result<(Channel, Option<Arc<TrustBundle>>), SyncError> {
        match self.bootstrap_channel(introduction.bundle(), Doubt::Refused).await {
            Ok(channel) => {
                let (bundle, name) = self.fetch_bundle(channel.clone()).await?;
                match introduction {
                    Introduction::Placed(_) => Ok((channel, Some(bundle))),
                    Introduction::Known(_) => {
                        self.adopt_bundle(bundle);
                        self.followed.take_bundle(name);
                        Ok((channel, None))
                    }
                }
            }
            // Nothing it says counts, its bundle neither, before what we know has verified a fresh signature of it.
            Err(error) if error.is_doubt() => {
                warn!(error = %describe(&error), server = self.parts.server.address(), "asking the server for a fresh signature");
                let channel = self.bootstrap_channel(introduction.bundle(), Doubt::Heard).await?;
                match introduction {
                    Introduction::Placed(bundle) => return Ok((channel, Some(bundle))),
                    Introduction::Known(Some(known)) if self.bundle.is_none() => self.adopt_bundle(known),
                    Introduction::Known(_) => {}
                }
                Ok((channel, None))
            }
            Err(error) => Err(error),
        }
    }

    /// A channel without a certificate of our own.
    async fn bootstrap_channel(&self, known: Option<&Arc<TrustBundle>>, doubt: Doubt) -> Result<Channel, SyncError> {
        match known {
            Some(bundle) => Ok(self.parts.server.bootstrap(Arc::clone(bundle.anchors()), doubt).await?),
            None => Ok(self.parts.server.insecure_bootstrap().await?),
        }
    }
}
