//! The key for JWT-SVIDs of the agent's own, in turns of the loop: it is published while the server is there, and signs beside the loop while
//! it is away.

use ironroot_api::pb::bundle::PublishJwtAuthorityRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_shell::describe;
use tracing::{info, warn};

use super::Synchronizer;
use crate::agent_record::AgentRecord;
use crate::local_authority::{AuthorityError, JwtKeys, LocalAuthority};
use crate::server_channel::{Channel, MAX_ANSWER_BYTES, RPC_DEADLINE, within};

impl Synchronizer {
    /// With a server at hand: publishes another key, if that is due. What fails is told, and tried again.
    pub(super) async fn tend_jwt_key(&mut self, channel: Channel) {
        self.follow_jwt_key();
        self.tell_if_keys_pile_up();
        let moment = self.parts.time.moment();
        let Some(keys) = self.own_jwt_keys() else { return };
        let published = match (keys.is_missed(), keys.is_due(&moment)) {
            (true, _) => Err(AuthorityError::NotInBundle),
            (false, true) => self.publish_jwt_key(channel).await,
            (false, false) => return,
        };
        let moment = self.parts.time.moment();
        let (Some(keys), Err(error)) = (self.own_jwt_keys(), published) else { return };
        let error = describe(&error);
        if keys.postpone(&error, &moment) {
            warn!(error, "this agent has no new key for JWT-SVIDs of its own");
        }
    }

    /// Another software's server prunes published keys a day after their end.
    fn tell_if_keys_pile_up(&mut self) {
        if !self.pushes.are_unknown() {
            return;
        }
        let keys = self.own_jwt_keys().and_then(JwtKeys::piled_up);
        if let Some(keys) = keys {
            let max_offline = self.parts.local_authority.as_ref().map(|own| own.max_offline().as_secs());
            warn!(
                keys,
                max_offline,
                "this server keeps published keys of JWT-SVIDs for a day after their end, if it is SPIRE's: so many of this agent's will be in \
                 the bundle at once; set max_offline to some hours"
            );
        }
    }

    fn own_jwt_keys(&mut self) -> Option<&mut JwtKeys> {
        self.parts.local_authority.as_mut().and_then(LocalAuthority::jwt_keys)
    }

    /// The key is named by the serial number of the SVID that publishes it: our server knows by that whose it is when it bans the agent.
    async fn publish_jwt_key(&mut self, channel: Channel) -> Result<(), AuthorityError> {
        let wanted = self.ledger.of_local_authority().ok_or(AuthorityError::NoEntry)?;
        let id = wanted.spiffe_id.clone();
        let (as_entry, serial) = self.channel_as(wanted, channel.clone()).await?;
        let now_unix = self.parts.time.now_unix();
        if self.own_jwt_keys().is_some_and(|keys| keys.must_be_kept_first()) {
            self.keep_before_a_key_gives_way().await;
        }
        let key = self.own_jwt_keys().ok_or(AuthorityError::NoAuthority)?.prepare(serial, now_unix).await?;
        let request = PublishJwtAuthorityRequest { jwt_authority: Some(key.clone()) };
        let mut client = BundleClient::new(as_entry).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = within(RPC_DEADLINE, client.publish_jwt_authority(request)).await;
        let all =
            answer.map_err(|status| AuthorityError::unpublished(status, id.as_str()))?.into_inner().jwt_authorities;
        let is_it = |known: &ironroot_api::pb::types::JwtKey| {
            (&known.key_id, &known.public_key) == (&key.key_id, &key.public_key) && !known.tainted
        };
        if !all.iter().any(is_it) {
            return Err(AuthorityError::NotInBundle);
        }
        // Not before it is seen where others see it.
        self.sync_bundle(channel).await.map_err(|error| AuthorityError::NoBundle(describe(&error)))?;
        let is_there = |bundle: &crate::server_answers::TrustBundle| {
            bundle.jwt_authorities().find(&key.key_id).is_some_and(|known| known.spki_der() == &key.public_key[..])
        };
        if !self.bundle.as_deref().is_some_and(is_there) {
            let moment = self.parts.time.moment();
            self.own_jwt_keys().into_iter().for_each(|keys| keys.await_it(&moment));
        }
        Ok(())
    }

    /// The bundle says which key signs. Nothing is offered while the server is there.
    pub(super) fn follow_jwt_key(&mut self) {
        let (Some(bundle), Some(authority)) = (&self.bundle, &mut self.parts.local_authority) else { return };
        let Some(keys) = authority.jwt_keys() else { return };
        if keys.follow(bundle, &self.parts.time) {
            let signs = keys.in_words();
            info!(signs, "the bundle has changed what this agent signs JWT-SVIDs with while its server is away");
            self.changes.any = true;
        }
    }

    /// Signs, beside the loop, while the server is away and has neither banned nor evicted this agent; else nothing does.
    pub(super) fn offer_tokens(&self) {
        let may = self.is_server_away && self.standing.is_good();
        let signer = self.parts.local_authority.as_ref().filter(|_| may);
        let signer = signer.and_then(|authority| authority.token_signer(self.synced_unix));
        self.parts.local_tokens.send_replace(signer);
    }

    pub(super) fn restore_jwt_key(&mut self, record: &AgentRecord) {
        let Some(kept) = &record.local_jwt_key else { return };
        let (Some(bundle), Some(authority)) = (&self.bundle, &mut self.parts.local_authority) else { return };
        match authority.restore_jwt(kept, bundle, &self.parts.time.moment()) {
            Ok(()) => info!(key_id = kept.key_id, "this agent's own key for JWT-SVIDs is taken up again"),
            Err(error) => warn!(error = %describe(&error), "this agent's own key for JWT-SVIDs is not usable any more"),
        }
    }
}
