//! Join tokens, each shown at several servers until it is known what became of it, and what the database says of them afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ironroot_lab::deployment::Server;
use ironroot_lab::server_client::ServerClient;
use tokio::sync::Semaphore;
use tonic::Code;

use crate::Outcome;
use crate::cluster::Cluster;
use crate::fleet::Fleet;

/// How often each token is shown, each time at another server.
const SHOWN: usize = 3;
/// How many are shown at once.
const AT_ONCE: usize = 24;
/// How long one is shown again and again while nothing definite is said.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(250);

/// What a server said of a token in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// An agent's certificate.
    Won,
    /// That it is not good.
    Refused,
    /// Nothing definite.
    Nothing,
}

/// What became of many.
#[derive(Debug, Default)]
pub struct Ledger {
    said: BTreeMap<String, Vec<Said>>,
    unavailable: usize,
    reasons: BTreeMap<String, usize>,
    slowest: Duration,
}

/// Good tokens, made at one server.
pub async fn make(server: &Server, count: usize) -> Vec<String> {
    let client = ServerClient::new(server).await;
    let mut tokens = Vec::with_capacity(count);
    for _ in 0..count {
        tokens.push(client.join_token().await);
    }
    tokens
}

/// Ways to every server.
pub async fn clients(fleet: &Fleet) -> Vec<ServerClient> {
    let mut clients = Vec::new();
    for server in &fleet.servers {
        clients.push(ServerClient::new(server).await);
    }
    clients
}

/// Shows each of the tokens at one of the servers; how many were good.
pub async fn spend_at(clients: &[ServerClient], tokens: &[String]) -> usize {
    let mut spent = 0;
    for (token, client) in tokens.iter().zip(clients.iter().cycle()) {
        spent += usize::from(show(client, token.clone(), PAUSE).await.said == Said::Won);
    }
    spent
}

/// Shows each of the tokens at every server at once. `done` counts what is definite.
pub async fn redeem(fleet: &Fleet, tokens: &[String], done: Arc<AtomicUsize>) -> Outcome<Ledger> {
    let clients = clients(fleet).await;
    let (room, mut redemptions) = (Arc::new(Semaphore::new(AT_ONCE)), tokio::task::JoinSet::new());
    for token in tokens {
        for client in clients.iter().cycle().take(SHOWN) {
            let (client, token, done) = (client.clone(), token.clone(), done.clone());
            let turn = room.clone().acquire_owned().await?;
            redemptions.spawn(async move {
                let shown = show(&client, token, PATIENCE).await;
                done.fetch_add(1, Ordering::Relaxed);
                drop(turn);
                shown
            });
        }
    }
    let mut ledger = Ledger::default();
    for shown in redemptions.join_all().await {
        ledger.slowest = ledger.slowest.max(shown.took);
        ledger.unavailable += shown.unavailable.len();
        shown.unavailable.into_iter().for_each(|why| *ledger.reasons.entry(why).or_default() += 1);
        ledger.said.entry(shown.token).or_default().push(shown.said);
    }
    Ok(ledger)
}

struct Shown {
    token: String,
    said: Said,
    unavailable: Vec<String>,
    took: Duration,
}

/// Shows it until something definite is said, for so long.
async fn show(client: &ServerClient, token: String, patience: Duration) -> Shown {
    let (began, mut unavailable) = (Instant::now(), Vec::new());
    let said = loop {
        match client.attest_with_token(&token).await {
            Ok(_) => break Said::Won,
            Err(status) if matches!(status.code(), Code::InvalidArgument | Code::PermissionDenied) => {
                break Said::Refused;
            }
            Err(_) if began.elapsed() >= patience => break Said::Nothing,
            Err(status) => unavailable.push(format!("{:?}: {}", status.code(), status.message())),
        }
        tokio::time::sleep(PAUSE).await;
    };
    Shown { token, said, unavailable, took: began.elapsed() }
}

impl Ledger {
    /// Holds it against the database: no token won twice, none spent without a winner, none gone.
    pub fn settle(&self, cluster: &Cluster, database: &str) -> Outcome<()> {
        let list = |query: &str| -> Outcome<Vec<String>> {
            Ok(cluster.sql(database, query)?.lines().map(str::to_owned).collect())
        };
        let good = list("SELECT token FROM join_tokens")?;
        let agents = list("SELECT regexp_replace(spiffe_id, '.*/', '') FROM agents")?;
        let mut broken = Vec::new();
        for (token, said) in &self.said {
            let won = said.iter().filter(|said| **said == Said::Won).count();
            let (is_good, is_spent) = (good.contains(token), agents.contains(token));
            if won > 1 || is_good == is_spent || is_spent != (won == 1) {
                broken.push(format!("{said:?}, in the database good: {is_good}, an agent: {is_spent}"));
            }
        }
        match broken.first() {
            None => Ok(()),
            Some(first) => {
                Err(format!("{} tokens of {} are not as they must be: {first}", broken.len(), self.said.len()).into())
            }
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |what| self.said.values().flatten().filter(|said| **said == what).count();
        writeln!(
            f,
            "  {} tokens, each shown at {SHOWN} servers: {} won, {} refused, {} without a definite answer; slowest {:.1} s",
            self.said.len(),
            count(Said::Won),
            count(Said::Refused),
            count(Said::Nothing),
            self.slowest.as_secs_f64()
        )?;
        write!(f, "  answers that were not definite, and asked again: {}", self.unavailable)?;
        self.reasons.iter().try_for_each(|(why, times)| write!(f, "\n    {times} x {why}"))
    }
}
