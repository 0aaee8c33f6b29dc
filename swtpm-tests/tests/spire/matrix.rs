//! An agent's life, in each of the four pairs: token, attestation, an SVID by a client library, rotation, crashes of either side,
//! changes, ban, eviction and a second token. Mixed pairs are administered with the other make's command line.

use std::collections::BTreeSet;
use std::time::Duration;

use ironroot_api::certificate::Certificate;
use ironroot_lab::deployment::{DEADLINE, TRUST_DOMAIN, expect_within};
use ironroot_lab::spire::Times;
use spiffe::{BundleSource, TrustDomain, X509Source, X509SourceBuilder};
use tokio::runtime::Runtime;

use crate::deployment::{AnyAgent, AnyServer, Maker};

/// SVIDs live for seconds, so that rotation and renewal happen while we look; the CA rotates after 50 s.
const TIMES: Times = Times { ca: "1m", agent: "20s", x509_svid: "10s" };
/// Rotations of the SVID that a client library has to see: enough for the agent's own SVID and the CA to have been renewed.
const ROTATIONS: usize = 14;

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn spires_agent_lives_on_our_server() {
    life(Maker::Spire, Maker::Ironroot);
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn our_agent_lives_on_spires_server() {
    life(Maker::Ironroot, Maker::Spire);
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn our_agent_lives_on_our_server_as_on_spires() {
    life(Maker::Ironroot, Maker::Ironroot);
}

/// Shows that the story itself is right.
#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn spires_agent_lives_on_spires_server_as_on_ours() {
    life(Maker::Spire, Maker::Spire);
}

/// `agent`'s life on `server`.
fn life(agent: Maker, server: Maker) {
    let tool = agent;
    let runtime = Runtime::new().expect("runtime");
    let mut server = AnyServer::start(server, TIMES);
    let mut agent = AnyAgent::new(agent);
    let token = server.token(tool);
    let entry = server.create_own_entry(tool, "/app", &["-hint", "first"]);
    agent.start(&server, Some(&token));
    agent.expect_identity(&runtime);
    let agent_id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/{token}");
    assert!(server.cli(tool, &["agent", "list"]).contains(&agent_id));

    let source = source(&runtime, &agent);
    follow_rotations(&runtime, &source, &agent, ROTATIONS);
    server.crash();
    follow_rotations(&runtime, &source, &agent, 2);
    agent.kill();
    agent.start(&server, None);
    agent.expect_identity(&runtime);
    follow_rotations(&runtime, &source, &agent, 2);
    runtime.block_on(source.shutdown());

    follow_changes(&runtime, &server, &agent, tool, &entry);

    server.cli(tool, &["agent", "ban", "-spiffeID", &agent_id]);
    agent.expect_nothing(&runtime, "a banned agent serves nothing");
    server.cli(tool, &["agent", "evict", "-spiffeID", &agent_id]);
    let token = server.token(tool);
    agent.kill();
    agent.start(&server, Some(&token));
    agent.expect_identity(&runtime);
    let agent_id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/{token}");
    server.cli(tool, &["agent", "evict", "-spiffeID", &agent_id]);
    agent.expect_nothing(&runtime, "an evicted agent, which has no second token, serves nothing");
}

fn source(runtime: &Runtime, agent: &AnyAgent) -> X509Source {
    let endpoint = format!("unix:{}", agent.socket().display());
    let made = runtime.block_on(X509SourceBuilder::new().endpoint(&endpoint).build());
    made.unwrap_or_else(|error| panic!("the client library gets no SVID: {error}\n{}", agent.log()))
}

/// A client library sees `count` new SVIDs, each of a life that has not ended, each under a bundle that it has.
fn follow_rotations(runtime: &Runtime, source: &X509Source, agent: &AnyAgent, count: usize) {
    let trust_domain = TrustDomain::new(TRUST_DOMAIN).expect("trust domain");
    let mut leaves = BTreeSet::new();
    let mut updates = source.updated();
    let follow = async {
        while leaves.len() <= count {
            let svid = source.svid().expect("an SVID");
            assert_eq!(svid.spiffe_id().to_string(), format!("spiffe://{TRUST_DOMAIN}/app"));
            let bundle = source.bundle_for_trust_domain(&trust_domain).expect("bundles").expect("the own one");
            assert!(!bundle.authorities().is_empty());
            leaves.insert(svid.leaf().as_bytes().to_vec());
            updates.changed().await.expect("the source goes on");
        }
    };
    let within = DEADLINE + Duration::from_secs(10) * u32::try_from(count).expect("a few");
    let followed = runtime.block_on(async { tokio::time::timeout(within, follow).await });
    followed.unwrap_or_else(|_| panic!("no {count} rotations in {within:?}\n{}", agent.log()));
}

/// Entries that come, change and go are seen.
fn follow_changes(runtime: &Runtime, server: &AnyServer, agent: &AnyAgent, tool: Maker, entry: &str) {
    let served = || agent.fetch(runtime).map(|response| response.svids).unwrap_or_default();
    let second = server.create_own_entry(tool, "/second", &[]);
    expect_within(DEADLINE, "a new entry is served", || agent.log(), || served().len() == 2);
    server.cli(tool, &["entry", "delete", "-entryID", &second]);
    expect_within(DEADLINE, "a deleted one is not", || agent.log(), || served().len() == 1);
    let (parent, id) = (format!("spiffe://{TRUST_DOMAIN}/node"), format!("spiffe://{TRUST_DOMAIN}/renamed"));
    let uid = format!("unix:uid:{}", nix::unistd::geteuid());
    let words = ["-entryID", entry, "-parentID", &parent, "-spiffeID", &id, "-selector", &uid, "-hint", "second"];
    server.cli(tool, &[&["entry", "update"], &words[..]].concat());
    let renamed = || served().first().is_some_and(|svid| svid.spiffe_id == id && svid.hint == "second");
    expect_within(DEADLINE, "a changed one is served as it is now", || agent.log(), renamed);
    // SPIRE's agent serves the new name with the old certificate until it has another.
    let leaf = || Certificate::parse_concatenated(&served().swap_remove(0).x509_svid).expect("a chain").swap_remove(0);
    let certified = || leaf().leaf_spiffe_id().expect("an X509-SVID").to_string() == id;
    expect_within(DEADLINE, "its certificate is for the new ID", || agent.log(), certified);
}
