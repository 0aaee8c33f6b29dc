//! By what the server is known that is asked without a certificate: the last good bundle, or one that the operator has placed since.
//!
//! ```text
//!  no bundle yet ─────────────────────────────────────────► the file of trust_bundle_path
//!  at each attestation ───────────────────────────────────► the last good bundle, and the file in turns
//!  the server is not believed by the last good bundle ────► the file, if it is newer
//! ```
//! A file counts beside a bundle that is held only if it has an authority that began after every authority of any bundle that was
//! held: an older file would bring back what was revoked since. What it replaces is held until the server that it proves has let the
//! agent in.

use std::sync::Arc;

use tracing::{debug, warn};

use super::{BootstrapError, SyncError, Synchronizer, read_bundle};
use crate::config::Bootstrap;
use crate::server_answers::TrustBundle;
use crate::server_channel::{Channel, Doubt};
use ironroot_shell::describe;

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
    pub(super) async fn introduction(&self) -> Result<Introduction, SyncError> {
        let Some(held) = &self.bundle else { return Ok(Introduction::Known(self.configured_bundle().await?)) };
        let placed = if self.failures.is_multiple_of(2) { None } else { self.placed_bundle().await };
        Ok(placed.map_or_else(|| Introduction::Known(Some(held.clone())), Introduction::Placed))
    }

    /// The configured bundle, if it is newer than all that was held.
    pub(super) async fn placed_bundle(&self) -> Option<Arc<TrustBundle>> {
        let configured = self.configured_bundle().await;
        let configured = configured.inspect_err(|error| debug!(error = %describe(error), "no other bundle")).ok()?;
        configured.filter(|configured| configured.began_after(self.newest_authority))
    }

    /// The server is not believed: says, once for each, of a bundle in the file that it is not taken for a newer one.
    pub(super) async fn explain_placed_bundle(&mut self) {
        let (Some(held), Ok(Some(placed))) = (self.bundle.clone(), self.configured_bundle().await) else { return };
        if placed != held && !placed.began_after(self.newest_authority) {
            let (began, newest) = (placed.newest_not_before(), self.newest_authority);
            self.told.placed_is_older(began, newest);
        }
    }

    /// What the file says now; `None` without one. The operator may have replaced it at any time.
    async fn configured_bundle(&self) -> Result<Option<Arc<TrustBundle>>, SyncError> {
        let Bootstrap::TrustBundle { path, format } = &self.parts.bootstrap else { return Ok(None) };
        let (file, format, trust_domain) = (path.clone(), *format, self.parts.trust_domain.clone());
        let read = tokio::task::spawn_blocking(move || read_bundle(&file, format, &trust_domain)).await;
        let read = read.unwrap_or(Err(BootstrapError::Unread));
        read.map(|bundle| Some(Arc::new(bundle))).map_err(|source| SyncError::Bootstrap { path: path.clone(), source })
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
