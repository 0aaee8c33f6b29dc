//! JWT-SVIDs for the entries of a caller.

use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt};
use ironroot_api::jwt::Audiences;
use tonic::Status;
use tracing::warn;

use super::Serving;
use crate::endpoints::admission::About;
use crate::endpoints::caller::Known;
use crate::jwt_svids::{FetchError, Token};
use crate::server_answers::EntryTerms;

/// Most identities for which one request gets tokens. Who has more names the one it wants.
const MAX_TOKENS_AT_ONCE: usize = 100;
/// Tokens of one request that are made at the same time; its user's turns bound them besides.
const AT_ONCE: usize = 4;

impl Serving {
    /// A token for each of `entries`, in their order. The entries are for whoever `caller` may ask for.
    pub async fn tokens(
        &self,
        caller: &Known,
        entries: Vec<Arc<EntryTerms>>,
        audiences: &Audiences,
        method: &'static str,
    ) -> Result<Vec<(Arc<EntryTerms>, Arc<Token>)>, Status> {
        if entries.len() > MAX_TOKENS_AT_ONCE {
            let text = format!("this workload has more than {MAX_TOKENS_AT_ONCE} identities: name one in spiffe_id");
            return Err(Status::resource_exhausted(text));
        }
        // Made as they come, no more than a few at a time.
        let fetches = entries.into_iter().map(|terms| self.token(caller.clone(), terms, audiences.clone(), method));
        futures_util::stream::iter(fetches).buffered(AT_ONCE).try_collect().await
    }

    async fn token(
        &self,
        caller: Known,
        terms: Arc<EntryTerms>,
        audiences: Audiences,
        method: &'static str,
    ) -> Result<(Arc<EntryTerms>, Arc<Token>), Status> {
        let turns = |server| self.0.admission.signatures(caller.peer.uid(), server, Instant::now());
        let token = self.0.jwt_svids.fetch(&terms, &audiences, &turns).await;
        let token = token.map_err(|error| self.not_fetched(&caller, &terms, method, &error))?;
        Ok((terms, token))
    }

    fn not_fetched(&self, caller: &Known, terms: &EntryTerms, method: &'static str, error: &FetchError) -> Status {
        let (uid, pid) = (caller.peer.uid(), caller.peer.pid());
        if let Some(pass) = self.0.admission.should_log(uid, About::Signature, Instant::now()) {
            let (spiffe_id, suppressed) = (&terms.spiffe_id, pass.suppressed);
            warn!(uid, pid, method, %spiffe_id, %error, suppressed, "Could not fetch JWT-SVID");
        }
        Status::unavailable(format!("could not fetch JWT-SVID: {error}"))
    }
}
