//! Agents that do nothing but listen.

use std::sync::Arc;

use ironroot_api::pb::change::WatchChangesResponse;
use ironroot_lab::server_client::{Agent, ServerClient};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::Streaming;

/// Attestations on their way at the same time.
const AT_ONCE: usize = 32;

/// An agent of its own connection, and its stream.
pub struct Watcher {
    pub agent: Agent,
    pub stream: Streaming<WatchChangesResponse>,
}

/// `count` agents, attested by tokens, each with a stream of deltas whose first message was read.
pub async fn listening(client: &ServerClient, count: usize) -> Vec<Watcher> {
    let (places, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for _ in 0..count {
        let (client, place) = (client.clone(), places.clone().acquire_owned().await.expect("open"));
        tasks.spawn(async move {
            let agent = client.agent().await;
            let stream = agent.listen().await;
            drop(place);
            Watcher { agent, stream }
        });
    }
    tasks.join_all().await
}
