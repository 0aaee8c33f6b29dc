//! JWT-SVIDs for the entries of a caller.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt};
use ironroot_api::SpiffeId;
use ironroot_api::jwt::Audiences;
use tonic::Status;
use tracing::warn;

use super::Serving;
use crate::endpoints::admission::About;
use crate::endpoints::caller::Known;
use crate::jwt_svids::{FetchError, Token};
use crate::server_answers::EntryTerms;
use crate::server_number::ServerNumber;

/// Most identities for which one request gets tokens. Who has more names the one it wants.
const MAX_TOKENS_AT_ONCE: usize = 100;
/// Tokens of one request that are made at the same time; its user's turns bound them besides.
const AT_ONCE: usize = 4;

type Tokens = Vec<(Arc<EntryTerms>, Arc<Token>)>;

impl Serving {
    /// A token for each of `entries`, in their order. The entries are for whoever `caller` may ask for. Where no ID was `named` those are left
    /// out whose server is away while another is there: what that one signs is good all the same.
    pub async fn tokens(
        &self,
        caller: &Known,
        entries: Vec<Arc<EntryTerms>>,
        audiences: &Audiences,
        (method, named): (&'static str, Option<&SpiffeId>),
    ) -> Result<Tokens, Status> {
        if entries.len() > MAX_TOKENS_AT_ONCE {
            let text = format!("this workload has more than {MAX_TOKENS_AT_ONCE} identities: name one in spiffe_id");
            return Err(Status::resource_exhausted(text));
        }
        let are_of_one_server = entries.windows(2).all(|two| two[0].server == two[1].server);
        if named.is_none() && !are_of_one_server {
            return self.tokens_of_those_there(caller, entries, audiences, method).await;
        }
        // Made as they come, no more than a few at a time.
        let fetches = entries.into_iter().map(|terms| async {
            let token = self.token(caller.clone(), terms.clone(), audiences.clone()).await;
            let token = token.map_err(|error| self.not_fetched(caller, &terms, method, &error))?;
            Ok((terms, token))
        });
        futures_util::stream::iter(fetches).buffered(AT_ONCE).try_collect().await
    }

    async fn tokens_of_those_there(
        &self,
        caller: &Known,
        entries: Vec<Arc<EntryTerms>>,
        audiences: &Audiences,
        method: &'static str,
    ) -> Result<Tokens, Status> {
        let longest = self.jwt().patience();
        let (end, away) = (Instant::now() + longest.of_those_away(), Away::default());
        let fetches = entries.into_iter().map(|terms| async {
            let patience = match away.has(terms.server) {
                true => end.saturating_duration_since(Instant::now()),
                false => longest.of_one_token(),
            };
            let token = self.token(caller.clone(), terms.clone(), audiences.clone());
            let token = tokio::time::timeout(patience, token).await.unwrap_or(Err(FetchError::Late));
            if token.as_ref().is_err_and(FetchError::is_of_a_server_away) {
                away.note(terms.server);
            }
            (terms, token)
        });
        let mut tokens = Tokens::new();
        let mut left_out = Vec::new();
        let fetched: Vec<_> = futures_util::stream::iter(fetches).buffered(AT_ONCE).collect().await;
        for (terms, token) in fetched {
            match token {
                Ok(token) => tokens.push((terms, token)),
                Err(error) if error.is_of_a_server_away() => left_out.push((terms, error)),
                Err(error) => return Err(self.not_fetched(caller, &terms, method, &error)),
            }
        }
        match left_out.first() {
            Some((terms, error)) if tokens.is_empty() => Err(self.not_fetched(caller, terms, method, error)),
            Some((_, error)) => {
                self.tell_left_out(caller, &left_out, method, error);
                Ok(tokens)
            }
            None => Ok(tokens),
        }
    }

    fn tell_left_out(
        &self,
        caller: &Known,
        left_out: &[(Arc<EntryTerms>, FetchError)],
        method: &'static str,
        error: &FetchError,
    ) {
        let (uid, pid) = (caller.peer.uid(), caller.peer.pid());
        let Some(pass) = self.0.admission.should_log(uid, About::Signature, Instant::now()) else { return };
        let left_out: Vec<_> = left_out.iter().map(|(terms, _)| terms.spiffe_id.as_str()).collect();
        let suppressed = pass.suppressed;
        warn!(uid, pid, method, ?left_out, %error, suppressed, "JWT-SVIDs of a server that is away are left out; those of the others are served");
    }

    async fn token(
        &self,
        caller: Known,
        terms: Arc<EntryTerms>,
        audiences: Audiences,
    ) -> Result<Arc<Token>, FetchError> {
        let turns = |server| self.0.admission.signatures(caller.peer.uid(), server, Instant::now());
        self.0.jwt_svids.fetch(&terms, &audiences, &turns).await
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

/// The servers of which one request has found out that they are away.
#[derive(Default)]
struct Away(Mutex<Vec<ServerNumber>>);

impl Away {
    fn has(&self, server: ServerNumber) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&server)
    }

    fn note(&self, server: ServerNumber) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(server);
    }
}
