//! Token exchange, where it is configured: its listener, and who keeps the issuers' keys.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::doors::BoundExchange;
use crate::endpoints::{ServerState, TokenExchange};
use crate::token_exchange::Issuers;

/// Serves as long as `background` runs.
pub(super) fn serve(background: &mut JoinSet<()>, exchanging: Option<(BoundExchange, Arc<ServerState>)>) {
    let Some(((listener, policies, proof), server)) = exchanging else { return };
    let exchanges = server.key_exchanges;
    let (issuers, keepers) = Issuers::new(policies, exchanges);
    let address = listener.address().expect("it is no unix socket");
    let answers = TokenExchange::new(server, issuers, address);
    background.spawn(listener.serve_by(proof.tls(exchanges), answers));
    background.spawn(proof.keep_current());
    keepers.into_iter().for_each(|keeper| drop(background.spawn(keeper.run())));
}
