//! The trust bundle: what everything is verified against.

use std::sync::Arc;
use std::time::Instant;

use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::view::BundleName;
use tracing::{info, warn};

use super::{SyncError, Synchronizer};
use crate::server_answers::TrustBundle;
use crate::server_channel::{Channel, RPC_DEADLINE, within};

impl Synchronizer {
    /// Asks for the bundle, and what names it.
    pub(super) async fn fetch_bundle(&self, channel: Channel) -> Result<(Arc<TrustBundle>, BundleName), SyncError> {
        let request = GetBundleRequest { output_mask: None };
        let answer = within(RPC_DEADLINE, BundleClient::new(channel).get_bundle(request)).await?.into_inner();
        let bundle = TrustBundle::from_answer(&answer, &self.parts.trust_domain)?;
        Ok((Arc::new(bundle), BundleName::of(&answer)))
    }

    /// Asks for the bundle and makes it this agent's.
    pub(super) async fn sync_bundle(&mut self, channel: Channel) -> Result<(), SyncError> {
        let (bundle, name) = self.fetch_bundle(channel).await?;
        self.adopt_bundle(bundle);
        self.followed.take_bundle(name);
        Ok(())
    }

    /// Makes `bundle` what everything is verified against, and publishes it if it is new: a prepared authority reaches
    /// workloads before anything it signed does.
    pub(super) fn adopt_bundle(&mut self, bundle: Arc<TrustBundle>) {
        if self.bundle.as_deref() == Some(&*bundle) {
            return;
        }
        self.anchors.follow(bundle.anchors());
        let moment = self.parts.time.moment();
        let marked = self.ledger.mark_untrusted(bundle.untainted_anchors(), Instant::now(), &moment);
        let marked = marked + self.mark_wits(&bundle);
        let withdrawn = self.ledger.withdraw_unbelieved(bundle.anchors(), Instant::now(), &moment);
        let jwt = bundle.jwt_authorities();
        info!(
            authorities = bundle.authorities().len(),
            jwt_authorities = jwt.len(),
            svids_to_replace = marked,
            server = self.parts.server.address(),
            "trust bundle changed"
        );
        if withdrawn > 0 {
            warn!(withdrawn, "an authority was revoked: what it signed is served no longer");
        }
        if jwt.left_out() > 0 {
            warn!(left_out = jwt.left_out(), "keys of the trust bundle that sign no JWT-SVID this agent can verify");
        }
        self.replace_certificate_if_untrusted(&bundle);
        self.newest_authority = self.newest_authority.max(bundle.newest_not_before());
        self.parts.local_authority.iter_mut().for_each(|authority| authority.follow(&bundle, &moment));
        self.bundle = Some(bundle);
        self.follow_jwt_key();
        self.followed.forget_bundle();
        self.changes.any = true;
        self.changes.must_not_be_undone = true;
        self.changes.removal |= withdrawn > 0;
        self.publish();
    }

    /// WIT-SVIDs that are to be replaced, with their X509-SVIDs; also those that are missing, where the server signs some.
    fn mark_wits(&mut self, bundle: &TrustBundle) -> usize {
        let keys = bundle.wit_authorities();
        self.ledger.mark_wits(keys, self.parts.wit_svids && !keys.is_empty(), Instant::now())
    }
}
