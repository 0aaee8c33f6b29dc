//! After a power cut: every agent of a fleet attests at once. Then the same fleet polls, and its server is filled with entries.

use std::path::PathBuf;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream;
use ironroot_lab::deployment::{Server, ServerOptions};
use ironroot_lab::server_client::{Credentials, ServerClient};
use ironroot_lab::spire::{SpireServer, Times};
use ironroot_lab::usage::cpu_ms;
use tokio::runtime::Runtime;

use super::sizing::{Sizes, sizes};
use super::{both, pair, row};

/// Agents of the fleet.
pub const AGENTS: usize = 300;
/// Attestations on their way at the same time.
const AT_ONCE: usize = 64;

struct Measured {
    seconds: f64,
    cpu_ms_each: f64,
    sizes: Sizes,
}

pub fn report() {
    let measured = both(
        || {
            let mut server = Server::start(&ServerOptions::default());
            let pid = server.process().expect("it runs").pid();
            measure(server.socket(), server.port(), pid)
        },
        || {
            let mut server = SpireServer::start(Times { ca: "24h", agent: "1h", x509_svid: "1h" });
            let pid = server.process().expect("it runs").pid();
            measure(server.socket(), server.port(), pid)
        },
    );
    row(&format!("{AGENTS} agents attest by token at once, s"), &pair(&measured, |m| m.seconds), 2, "-");
    row(
        "server CPU per attestation by token, handshake included, ms",
        &pair(&measured, |m| m.cpu_ms_each),
        2,
        "≤ 0.5 of SPIRE's",
    );
    super::sizing::report(&(measured.0.sizes, measured.1.map(|measured| measured.sizes)));
}

fn measure(socket: PathBuf, port: u16, pid: u32) -> Measured {
    Runtime::new().expect("runtime").block_on(async {
        let client = ServerClient::to(socket, port).await;
        let mut tokens = Vec::with_capacity(AGENTS);
        for _ in 0..AGENTS {
            tokens.push(client.join_token().await);
        }
        let (began, cpu) = (Instant::now(), cpu_ms(pid));
        let attest = |token: String| {
            let client = client.clone();
            async move { client.attest_with_token(&token).await.expect("attested") }
        };
        let fleet: Vec<Credentials> = stream::iter(tokens).map(attest).buffer_unordered(AT_ONCE).collect().await;
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_ms(pid) - cpu);
        let sizes = sizes(&client, &fleet, pid).await;
        Measured { seconds, cpu_ms_each: cpu / AGENTS as f64, sizes }
    })
}
