//! Keys of the agent's block that change what workloads are told: the same questions to an agent of either make, and the same answers.

use ironroot_api::certificate::Certificate;
use ironroot_api::csr::{KeyKind, Spki};
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, TRUST_DOMAIN, expect_within};
use ironroot_lab::spire::{SpireAgent, Times};
use ironroot_lab::workload_client::{fetch, fetch_jwt, jwt_key_ids};
use tokio::runtime::Runtime;
use tonic::{Code, Status};

use crate::deployment::{AnyAgent, AnyServer, Maker};

const TIMES: Times = Times { ca: "24h", agent: "1h", x509_svid: "1h" };

fn both(server: &AnyServer, lines: &str) -> [AnyAgent; 2] {
    [Maker::Ironroot, Maker::Spire].map(|maker| AnyAgent::started_with(maker, server, lines))
}

/// The kind of this process's first key, once there is one.
fn expect_kind(runtime: &Runtime, agent: &AnyAgent) -> KeyKind {
    let mut last = None;
    let is_served = || {
        last = runtime.block_on(fetch(&agent.socket())).ok();
        last.is_some()
    };
    expect_within(DEADLINE, "an X509-SVID is served", || agent.log(), is_served);
    let chain = Certificate::parse_concatenated(&last.expect("served").svids[0].x509_svid).expect("DER");
    Spki::parse(&chain[0].spki_der()).expect("a key").kind()
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn workloads_keys_of_each_kind_are_signed_for_by_either_server() {
    let runtime = Runtime::new().expect("runtime");
    for maker in [Maker::Ironroot, Maker::Spire] {
        let server = AnyServer::start(maker, TIMES);
        server.create_own_entry(Maker::Spire, "/app", &[]);
        for (name, expected) in [("ec-p384", KeyKind::EcP384), ("rsa-2048", KeyKind::Rsa)] {
            for agent in both(&server, &format!("workload_x509_svid_key_type = \"{name}\"")) {
                assert_eq!(expect_kind(&runtime, &agent), expected, "{maker:?}: {}", agent.log());
            }
        }
    }
}

/// Code and words of a refusal.
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.expect_err("refused");
    (status.code(), status.message().to_owned())
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn a_verifier_without_an_entry_is_told_the_same_by_either_agent() {
    let runtime = Runtime::new().expect("runtime");
    let server = AnyServer::start(Maker::Ironroot, TIMES);
    let keys = |agent: &AnyAgent| runtime.block_on(jwt_key_ids(&agent.socket(), TRUST_DOMAIN));
    for agent in both(&server, "") {
        let is_heard = || refused(keys(&agent)) == (Code::PermissionDenied, "no identity issued".to_owned());
        expect_within(DEADLINE, "it is refused", || agent.log(), is_heard);
    }
    let told = both(&server, "allow_unauthenticated_verifiers = true").map(|agent| {
        let mut told = None;
        let is_told = || {
            told = keys(&agent).ok().filter(|keys| !keys.is_empty());
            told.is_some()
        };
        expect_within(DEADLINE, "the own bundle is told", || agent.log(), is_told);
        let token = runtime.block_on(fetch_jwt(&agent.socket(), &["us"], ""));
        assert_eq!(refused(token), (Code::PermissionDenied, "no identity issued".to_owned()));
        told
    });
    assert_eq!(told[0], told[1]);
}

/// An agent of that make with these lines in its `experimental` block.
fn with_experimental(maker: Maker, server: &AnyServer, lines: &str) -> AnyAgent {
    let (bundle, token) = (server.cli(Maker::Spire, &["bundle", "show"]), server.token(Maker::Spire));
    match maker {
        Maker::Ironroot => {
            let mut device = Device::without_tpm();
            let (join_token, experimental_lines) = (Some(token), lines.to_owned());
            let options =
                AgentOptions { join_token, experimental_lines, key_manager: "disk", ..AgentOptions::default() };
            device.provision_with_bundle(&bundle, server.port(), &options);
            device.start();
            AnyAgent::Ours(device)
        }
        Maker::Spire => {
            let mut agent = SpireAgent::new().with_experimental(lines);
            agent.provision(&bundle, server.port());
            agent.start(Some(&token));
            AnyAgent::Spires(agent)
        }
    }
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn a_rate_of_calls_is_held_by_either_agent_with_the_same_words() {
    let runtime = Runtime::new().expect("runtime");
    let server = AnyServer::start(Maker::Ironroot, TIMES);
    server.create_own_entry(Maker::Spire, "/app", &[]);
    for maker in [Maker::Ironroot, Maker::Spire] {
        let agent = with_experimental(maker, &server, "ratelimit { fetch_jwt_bundles = 1 }");
        let is_told = || runtime.block_on(jwt_key_ids(&agent.socket(), TRUST_DOMAIN)).is_ok();
        expect_within(DEADLINE, "bundles are served", || agent.log(), is_told);
        let socket = agent.socket();
        let asked = (0..100).map(|_| jwt_key_ids(&socket, TRUST_DOMAIN));
        let answers = runtime.block_on(futures_util::future::join_all(asked));
        let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        assert!(!refused.is_empty(), "{maker:?}: {}", agent.log());
        for status in refused {
            let words = "rate limit exceeded for /SpiffeWorkloadAPI/FetchJWTBundles";
            assert_eq!((status.code(), status.message()), (Code::Unavailable, words), "{maker:?}");
        }
        assert_eq!(expect_kind(&runtime, &agent), KeyKind::EcP256, "other calls have no bound");
    }
}
