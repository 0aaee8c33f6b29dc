//! What NewJWTSVID costs where keys are in software: tokens a second and core, and how long callers wait who all come at once.
//!
//! `scripts/bench jwt`. A rate is of CPU time, so that neighbours on the machine disturb it little, and stands beside two limits of the
//! same run: bare signatures, and calls on the same connections that ask for next to nothing. No server can do better than both together.
//! A wait is of the wall's, and stands beside that of as many callers who ask for next to nothing.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use ironroot_api::pb::bundle::GetFederatedBundleRequest;
use ironroot_api::pb::svid::NewJwtsvidRequest;
use ironroot_lab::authority::{AuthorityLab, NOW, sign_jwt};
use ironroot_lab::deployment::{Keys, Server, ServerOptions};
use ironroot_lab::server_client::{Agent, ServerClient};
use ironroot_lab::softhsm::{CONFIGURATION_VARIABLE, SoftHsm};
use ironroot_lab::usage::cpu_ms;
use ironroot_server::keys::{KeyManager, SoftwareKeys};
use nix::sys::resource::{UsageWho, getrusage};
use tokio::sync::Barrier;

/// Tokens signed for one figure.
const TOKENS: u32 = 20_000;
/// Agents, and callers of each that ask at the same moment: a thousand in all, fewer than an agent's connection has calls for.
const AGENTS: usize = 50;
const CALLERS: usize = 20;
/// Bursts; the first finds everything cold.
const BURSTS: usize = 5;
/// Callers that ask for one token after the other, and how many each.
const STEADY_CALLERS: usize = 64;
const STEADY_CALLS: usize = 300;

fn main() {
    // A PKCS#11 module reads the environment; only a new process can have another one.
    if std::env::var_os(CONFIGURATION_VARIABLE).is_none() {
        let hsm = SoftHsm::new();
        let (variable, path) = hsm.environment();
        let program = std::env::current_exe().expect("this program");
        assert!(Command::new(program).env(variable, path).status().expect("it runs again").success());
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    println!("| what | measured | of bare signatures | goal |\n|---|---|---|---|");
    let bare = sign_bare();
    let rate = |what: &str, rate: f64, goal: &str| println!("| {what} | {rate:.0} | {:.2} | {goal} |", rate / bare);
    rate("bare P-256 signatures per second and core", bare, "-");
    let alone = runtime.block_on(sign_alone());
    rate("JWT-SVIDs per second and core, software key, the CA alone", alone, "≥ 20000");
    let mut server = Server::start(&ServerOptions { keys: Keys::File, ..Default::default() });
    let pid = server.process().expect("it runs").pid();
    let asked = runtime.block_on(ask(&server, pid));
    let (steady, together) = (format!("{STEADY_CALLERS} callers"), format!("{} callers at once", AGENTS * CALLERS));
    let of_limit = |token: f64, nothing: f64| token * (1.0 / bare + 1.0 / nothing);
    for (who, token, nothing) in
        [(&steady, asked.tokens.steady, asked.nothings.steady), (&together, asked.tokens.bursts, asked.nothings.bursts)]
    {
        rate(&format!("calls for next to nothing per second and core of the server, {who}"), nothing, "-");
        rate(&format!("NewJWTSVID per second and core of the server, {who}"), token, "≥ 20000");
        println!("| the same, of what both limits leave | {:.2} | - | - |", of_limit(token, nothing));
    }
    println!("| | | of callers for next to nothing | |\n|---|---|---|---|");
    let wait = |what: &str, tokens: f64, nothings: f64| {
        println!("| {together} for JWT-SVIDs, p99, {what} | {tokens:.0} ms | {:.1} | ≤ 50 ms |", tokens / nothings);
    };
    wait("the first time", asked.tokens.p99s[0], asked.nothings.p99s[0]);
    wait(&format!("median of {BURSTS}"), asked.tokens.median_p99(), asked.nothings.median_p99());
}

/// Signatures a second of CPU time, with nothing around them.
fn sign_bare() -> f64 {
    let (random, key) = (SystemRandom::new(), EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING));
    let (key, before) = (key.expect("a key"), own_cpu());
    for _ in 0..TOKENS {
        key.sign(&random, &[7; 300]).expect("a signature");
    }
    f64::from(TOKENS) / (own_cpu() - before).as_secs_f64()
}

/// Tokens a second of CPU time, without a call.
async fn sign_alone() -> f64 {
    let lab = AuthorityLab::new(&SoftHsm::of_environment(), 24 * 3600).with_jwt();
    let ca = lab.keeping_keys_in(KeyManager::Software(SoftwareKeys::in_memory())).start(NOW).await.expect("a CA");
    let before = own_cpu();
    for _ in 0..TOKENS {
        sign_jwt(&ca, NOW).await.expect("a token");
    }
    f64::from(TOKENS) / (own_cpu() - before).as_secs_f64()
}

/// What callers ask for.
#[derive(Clone, Copy)]
enum Call {
    /// A token, by NewJWTSVID.
    Token,
    /// The bundle of a trust domain that the server does not know. Not GetBundle: what anyone may call has one share for each address.
    Nothing,
}

impl Call {
    async fn ask(self, (agent, entry): &(Agent, String), audience: String) {
        match self {
            Self::Token => {
                let request = NewJwtsvidRequest { entry_id: entry.clone(), audience: vec![audience] };
                agent.svids().new_jwtsvid(request).await.expect("a token");
            }
            Self::Nothing => {
                let request =
                    GetFederatedBundleRequest { trust_domain: "unknown.example".to_owned(), output_mask: None };
                let status = agent.bundles().get_federated_bundle(request).await.expect_err("it is not there");
                assert_eq!(status.code(), tonic::Code::NotFound, "{status}");
            }
        }
    }
}

/// What callers met who asked for either.
struct Asked {
    tokens: Met,
    nothings: Met,
}

/// What callers met, and what the server spent on them.
struct Met {
    /// Calls a second of the server's CPU time: one after the other, and all at once.
    steady: f64,
    bursts: f64,
    /// Of each burst, ms.
    p99s: Vec<f64>,
}

impl Met {
    fn median_p99(&self) -> f64 {
        let mut sorted = self.p99s.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

async fn ask(server: &Server, pid: u32) -> Asked {
    let client = ServerClient::new(server).await;
    let mut agents = Vec::new();
    for _ in 0..AGENTS {
        let agent = client.agent().await;
        let entry = server.create_entry(agent.id().as_str(), "/job", &["unix:uid:1"], &[]);
        agents.push((agent, entry));
    }
    let agents = Arc::new(agents);
    // Tokens first: their first burst is to find everything cold.
    Asked { tokens: meet(Call::Token, &agents, pid).await, nothings: meet(Call::Nothing, &agents, pid).await }
}

async fn meet(call: Call, agents: &Arc<Vec<(Agent, String)>>, pid: u32) -> Met {
    let (mut p99s, began) = (Vec::new(), cpu_ms(pid));
    for burst in 0..BURSTS {
        p99s.push(p99_of(call, agents.clone(), burst).await);
    }
    let burst = cpu_ms(pid);
    ask_steadily(call, agents.clone()).await;
    let per_core = |calls: usize, ms: f64| calls as f64 / (ms / 1e3);
    Met {
        steady: per_core(STEADY_CALLERS * STEADY_CALLS, cpu_ms(pid) - burst),
        bursts: per_core(BURSTS * AGENTS * CALLERS, burst - began),
        p99s,
    }
}

async fn ask_steadily(call: Call, agents: Arc<Vec<(Agent, String)>>) {
    let caller = |caller: usize, agents: Arc<Vec<(Agent, String)>>| async move {
        for number in 0..STEADY_CALLS {
            call.ask(&agents[caller % AGENTS], format!("https://{number}.example")).await;
        }
    };
    let callers: tokio::task::JoinSet<()> = (0..STEADY_CALLERS).map(|number| caller(number, agents.clone())).collect();
    callers.join_all().await;
}

async fn p99_of(call: Call, agents: Arc<Vec<(Agent, String)>>, burst: usize) -> f64 {
    let together = Arc::new(Barrier::new(AGENTS * CALLERS));
    let callers: Vec<_> = (0..AGENTS * CALLERS)
        .map(|caller| {
            let (agents, together) = (agents.clone(), together.clone());
            tokio::spawn(async move {
                together.wait().await;
                let start = Instant::now();
                call.ask(&agents[caller % AGENTS], format!("https://{burst}.{caller}.example")).await;
                start.elapsed().as_secs_f64() * 1e3
            })
        })
        .collect();
    let mut waits = Vec::new();
    for caller in callers {
        waits.push(caller.await.expect("a task of our own"));
    }
    waits.sort_by(f64::total_cmp);
    waits[waits.len() * 99 / 100]
}

/// CPU time of this process.
fn own_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the kernel tells");
    let of = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), 0) + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    of(usage.user_time()) + of(usage.system_time())
}
