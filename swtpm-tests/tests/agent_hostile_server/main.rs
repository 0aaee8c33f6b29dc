//! An agent and a server that is wrong, hostile, older, or gone: what is held stays, nothing false replaces it.

mod boot_log;
mod deltas;
mod federation;
mod jwt;
mod new_root;
mod push;
mod wit;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_agent::agent_key::{KeyOf, KeyPlace, KeyStore, WorkloadKeyKind};
use ironroot_agent::agent_record::AgentRecord;
use ironroot_agent::config::{Bootstrap, BundleSource, JoinToken, Rebootstrap, RebootstrapMode, TrustBundleFormat};
use ironroot_agent::identities::Identities;
use ironroot_agent::issuance_heads::IssuanceHeads;
use ironroot_agent::jwt_svids::{JwtSvids, RenewalPatience};
use ironroot_agent::node_attestation::Attestor;
use ironroot_agent::own_certificate::OwnCertificate;
use ironroot_agent::report::{Report, Stands};
use ironroot_agent::requests::Requests;
use ironroot_agent::server_answers::{EntryKey, MAX_ENTRIES};
use ironroot_agent::server_channel::Server;
use ironroot_agent::server_number::ServerNumber;
use ironroot_agent::sync::{Memory, Parts, Synchronizer, Wakes};
use ironroot_agent::trusted_time::{Jumps, TrustedTime, system_unix};
use ironroot_agent::union::Bans;
use ironroot_agent::upstreams::{Upstream, Upstreams};
use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::types::Entry;
use ironroot_api::pb::types::entry::AdditionalAttributes;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_attest::SelectorSet;
use ironroot_lab::deployment::expect_within_async;
use ironroot_lab::scripted_server::{AgentLie, BundleLie, ScriptedServer, SvidLie, TRUST_DOMAIN, entry};
use ironroot_lab::toy_ca::ToyCa;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::Code;

const DEADLINE: Duration = Duration::from_secs(30);

/// An agent in this process, with its key in memory and its record in a directory.
struct Agent {
    identities: watch::Receiver<Arc<Identities>>,
    requests: Requests,
    jwt_svids: JwtSvids,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    directory: TempDir,
}

fn in_file(path: PathBuf) -> Bootstrap {
    Bootstrap::TrustBundle(BundleSource::File { path, format: TrustBundleFormat::Pem })
}

/// How often an agent asks, and for how long it believes an answer.
struct Pace {
    sync_interval: Duration,
    max_age: Option<Duration>,
    patience: RenewalPatience,
}

impl Agent {
    fn start(server: &ScriptedServer) -> Self {
        Self::start_with(server, &server.bundle_pem(), tempfile::tempdir().expect("directory"))
    }

    fn start_with(server: &ScriptedServer, bundle_pem: &str, directory: TempDir) -> Self {
        let bundle = directory.path().join("bootstrap.pem");
        std::fs::write(&bundle, bundle_pem).expect("bundle written");
        let bootstrap = in_file(bundle);
        Self::start_bootstrapped(server, bootstrap, directory)
    }

    fn start_bootstrapped(server: &ScriptedServer, bootstrap: Bootstrap, directory: TempDir) -> Self {
        Self::start_polling(
            server,
            bootstrap,
            directory,
            Pace { sync_interval: Duration::from_millis(100), max_age: None, patience: RenewalPatience::default() },
        )
    }

    /// An agent that asks for changes once an hour, as long as somebody tells it of them.
    fn start_listening(server: &ScriptedServer) -> Self {
        Self::start_at(
            server,
            Pace { sync_interval: Duration::from_secs(300), max_age: None, patience: RenewalPatience::default() },
        )
    }

    fn start_at(server: &ScriptedServer, pace: Pace) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("bootstrap.pem");
        std::fs::write(&path, server.bundle_pem()).expect("bundle written");
        Self::start_polling(server, in_file(path), directory, pace)
    }

    fn start_polling(server: &ScriptedServer, bootstrap: Bootstrap, directory: TempDir, pace: Pace) -> Self {
        let trust_domain = TrustDomain::new(TRUST_DOMAIN).expect("legal");
        let (publisher, identities) = watch::channel(Arc::new(Identities::starting(trust_domain.clone())));
        let (stop, stopping) = watch::channel(false);
        let (link, linked) = watch::channel(None);
        let time = TrustedTime::new();
        let (requests, waiting) = Requests::channel();
        let upstream = Upstream {
            link: linked,
            requests: requests.clone(),
            time: time.clone(),
            local_tokens: watch::channel(None).1,
        };
        let jwt_svids = JwtSvids::new(identities.clone(), Upstreams::of(vec![upstream]).expect("one"), pace.patience);
        tokio::spawn(jwt_svids.clone().follow());
        let address = server.address();
        let mut synchronizer = Synchronizer::new(Parts {
            allow_executable_only: false,
            server: Server::new(&address.ip().to_string(), address.port(), &trust_domain, time.clone()),
            trust_domain,
            bootstrap,
            rebootstrap: Rebootstrap { mode: RebootstrapMode::Never, delay: Duration::ZERO },
            attestor: Attestor::JoinToken(Some(JoinToken::new("token"))),
            keys: KeyStore::open(KeyPlace::Disk { directory: directory.path().to_owned() }, KeyOf::Agent),
            local_authority: None,
            local_tokens: watch::channel(None).0,
            heads: IssuanceHeads::in_memory(),
            memory: Memory::plain(directory.path().to_owned()),
            time,
            sync_interval: pace.sync_interval,
            max_age: pace.max_age,
            workload_keys: WorkloadKeyKind::default(),
            wit_svids: true,
            publisher,
            reporter: watch::channel(Report::default()).0,
            link,
            counted: Arc::default(),
            number: ServerNumber::FIRST,
            bans: Bans::default(),
            shown: OwnCertificate::default(),
        });
        let wakes = Wakes::new(stopping, Arc::default(), waiting, Jumps::channel().1);
        let task = tokio::spawn(async move {
            synchronizer.restore().await;
            synchronizer.run(wakes).await;
        });
        Self { identities, requests, jwt_svids, stop, task, directory }
    }

    async fn stop(self) -> TempDir {
        self.stop.send_replace(true);
        tokio::time::timeout(DEADLINE, self.task).await.expect("ends when told to").expect("without a panic");
        self.directory
    }

    fn serial(&self) -> Option<String> {
        self.serials().into_iter().next()
    }

    /// The serials of what a process of uid 1000 gets now.
    fn serials(&self) -> Vec<String> {
        let identities = self.identities.borrow().clone();
        let served = identities.for_selectors(&selectors(), system_unix());
        served.iter().map(|i| leaf(i.chain_der()).serial_decimal()).collect()
    }

    fn ids(&self) -> Vec<String> {
        let identities = self.identities.borrow().clone();
        identities.for_selectors(&selectors(), system_unix()).iter().map(|i| i.spiffe_id().to_string()).collect()
    }

    fn authorities(&self) -> usize {
        self.identities.borrow().bundle().map_or(0, |bundle| bundle.authorities().len())
    }

    fn cast_out(&self) -> Option<Stands> {
        self.identities.borrow().cast_out()
    }

    fn record(&self) -> Option<AgentRecord> {
        AgentRecord::read(self.directory.path(), &TrustDomain::new(TRUST_DOMAIN).expect("legal")).expect("readable")
    }
}

/// The entry whose SVID is made on demand.
fn rare() -> Vec<EntryKey> {
    vec![EntryKey { server: ServerNumber::FIRST, id: "rare".to_owned() }]
}

fn selectors() -> SelectorSet {
    std::iter::once("unix:uid:1000".parse().expect("legal")).collect()
}

fn leaf(chain: &[u8]) -> Certificate {
    Certificate::parse_concatenated(chain).expect("a chain").remove(0)
}

async fn until(claim: &str, mut holds: impl FnMut() -> bool) {
    expect_within_async(DEADLINE, claim, String::new, async || holds()).await;
}

async fn serving(server: &ScriptedServer) -> Agent {
    let agent = Agent::start(server);
    until("an honest server's identity is served", || agent.serial().is_some()).await;
    agent
}

#[tokio::test]
async fn attests_once_syncs_and_serves() {
    let server = ScriptedServer::start();
    let agent = serving(&server).await;
    assert_eq!(agent.ids(), [format!("spiffe://{TRUST_DOMAIN}/workload")]);
    until("several syncs", || server.asked().syncs > 5).await;
    let asked = server.asked();
    assert_eq!((asked.attestations, asked.batches, asked.statuses), (1, 1, 1));
    assert!(asked.mutual_connections >= 1, "it showed its certificate");
    assert_eq!(asked.renewals, 0);
    let bundle = agent.identities.borrow().bundle().cloned().expect("bundle");
    let key = agent.identities.borrow().iter().next().expect("identity").key().pkcs8_der().clone();
    assert_eq!(bundle.authorities().len(), 1);
    rcgen::KeyPair::try_from(&key[..]).expect("PKCS#8");
}

//= FLT-A25
#[tokio::test]
async fn no_lie_about_an_svid_replaces_the_last_good_one() {
    for lie in [
        SvidLie::OtherId,
        SvidLie::OtherTrustDomain,
        SvidLie::OtherKey,
        SvidLie::SigningCertificate,
        SvidLie::UnknownAuthority,
        SvidLie::Expired,
        SvidLie::EmptyChain,
        SvidLie::Garbage,
        SvidLie::MissingResult,
        SvidLie::Oversized,
        SvidLie::Amplified,
    ] {
        let server = ScriptedServer::start();
        let agent = serving(&server).await;
        let good = agent.serial();
        let batches = server.asked().batches;
        server.play(|script| {
            script.svid = lie;
            // A new version of the entry: the agent asks for a new SVID at once.
            script.entries = vec![entry("workload", "/workload", 2), entry("second", "/second", 1)];
        });
        until("it asks again", || server.asked().batches > batches).await;
        let syncs = server.asked().syncs;
        until("it goes on", || server.asked().syncs > syncs + 1).await;
        assert_eq!(agent.serials(), Vec::from_iter(good.clone()), "{lie:?}");
        drop(agent);
    }
}

#[tokio::test]
async fn a_server_that_comes_to_its_senses_is_believed_again() {
    let server = ScriptedServer::start();
    let agent = serving(&server).await;
    let good = agent.serial();
    server.play(|script| {
        script.svid = SvidLie::MissingResult;
        script.entries = vec![entry("workload", "/workload", 2)];
    });
    let batches = server.asked().batches;
    until("it asks again", || server.asked().batches > batches).await;
    server.play(|script| script.svid = SvidLie::Honest);
    until("the new SVID is served", || agent.serial().is_some() && agent.serial() != good).await;
}

//= FLT-A25
#[tokio::test]
async fn no_lie_about_the_bundle_replaces_the_last_good_one() {
    for lie in [
        BundleLie::Empty,
        BundleLie::OtherTrustDomain,
        BundleLie::NotAnAuthority,
        BundleLie::Garbage,
        BundleLie::Amplified,
    ] {
        let server = ScriptedServer::start();
        let agent = serving(&server).await;
        let (good, bundles) = (agent.serial(), server.asked().bundles);
        server.play(|script| script.bundle = lie);
        until("it asks again", || server.asked().bundles > bundles + 2).await;
        assert_eq!((agent.serial(), agent.authorities()), (good, 1), "{lie:?}");
        drop(agent);
    }
}

//= FLT-A25
#[tokio::test]
async fn no_lie_about_the_agents_own_certificate_is_taken_up() {
    for lie in [AgentLie::NotAnAgent, AgentLie::Server, AgentLie::OtherKey, AgentLie::Challenge, AgentLie::Silence] {
        let server = ScriptedServer::start();
        server.play(|script| script.agent = lie);
        let agent = Agent::start(&server);
        until("it tries again", || server.asked().attestations > 2).await;
        assert_eq!(server.asked().mutual_connections, 0, "{lie:?}");
        assert!(agent.record().is_none_or(|record| record.chain.is_empty()), "{lie:?}");
        server.play(|script| script.agent = AgentLie::Honest);
        until("an honest answer is taken", || agent.serial().is_some()).await;
    }
}

//= FLT-N1
#[tokio::test]
async fn a_server_of_an_unknown_authority_is_not_talked_to() {
    let server = ScriptedServer::start();
    let agent = Agent::start_with(&server, &ToyCa::new(TRUST_DOMAIN).pem(), tempfile::tempdir().expect("directory"));
    until("it tries again and again", || server.asked().failed_handshakes > 2).await;
    assert_eq!(server.asked().attestations, 0);
    assert!(!agent.task.is_finished(), "and lives");
}

//= FLT-N3
#[tokio::test]
async fn an_svid_of_the_trust_domain_is_not_the_server() {
    for path in ["/workload", "/spire/agent/x", "/spire/server/x"] {
        let server = ScriptedServer::start_as(&format!("spiffe://{TRUST_DOMAIN}{path}"), ToyCa::new(TRUST_DOMAIN));
        let agent = Agent::start(&server);
        until("it tries again and again", || server.asked().failed_handshakes > 2).await;
        assert_eq!((server.asked().attestations, server.asked().bundles), (0, 0), "{path}");
        drop(agent);
    }
}

//= FLT-N1
#[tokio::test]
async fn a_hostile_answer_on_the_servers_address_costs_nothing_held() {
    let mut server = ScriptedServer::start();
    let agent = serving(&server).await;
    let good = agent.serial();
    server.stop();
    // Same address, same name, another authority.
    let impostor = ScriptedServer::start_at(server.address(), ToyCa::new(TRUST_DOMAIN));
    until("the agent meets the impostor", || impostor.asked().failed_handshakes > 2).await;
    assert_eq!(agent.serial(), good);
    assert!(!agent.task.is_finished());
    drop(impostor);
    server.start_again();
    let syncs = server.asked().syncs;
    until("the agent is back", || server.asked().syncs > syncs).await;
    assert_eq!(agent.serial(), good);
}

//= FLT-N2
#[tokio::test]
async fn a_server_that_takes_connections_and_says_nothing_is_given_up_and_dialled_again() {
    let mut server = ScriptedServer::start();
    let agent = serving(&server).await;
    let good = agent.serial();
    server.stop();
    let mut freed = None;
    until("the address is free", || {
        freed = std::net::TcpListener::bind(server.address()).ok();
        freed.is_some()
    })
    .await;
    let silent = freed.expect("bound");
    silent.set_nonblocking(true).expect("set");
    let (silent, mut held) = (TcpListener::from_std(silent).expect("taken over"), Vec::new());
    while held.len() < 2 {
        let dialled = tokio::time::timeout(2 * DEADLINE, silent.accept()).await;
        held.push(dialled.expect("no handshake lasts for ever").expect("accepted"));
    }
    assert_eq!(agent.serial(), good);
    drop((held, silent));
    server.start_again();
    let syncs = server.asked().syncs;
    until("the agent is back", || server.asked().syncs > syncs).await;
}

//= FLT-A4
#[tokio::test]
async fn serves_on_while_the_server_is_gone_and_catches_up() {
    let mut server = ScriptedServer::start();
    let agent = serving(&server).await;
    let good = agent.serial();
    server.stop();
    server.play(|script| script.entries.push(entry("second", "/second", 1)));
    // Nothing to wait for but time: the claim is that nothing happens while connections are refused.
    let attempts_end = Instant::now() + Duration::from_millis(500);
    until("half a second", || Instant::now() > attempts_end).await;
    assert_eq!(agent.serial(), good);
    server.start_again();
    until("the new entry is served", || agent.ids().len() == 2).await;
    assert!(agent.serials().contains(&good.expect("held")), "the old SVID is still good");
}

//= FLT-A22
#[tokio::test]
async fn a_ban_empties_the_agent_wipes_what_is_kept_and_is_lifted_by_attesting() {
    let server = ScriptedServer::start();
    let agent = serving(&server).await;
    assert!(agent.record().is_some());
    server.play(|script| {
        script.denial = Some(Reason::AgentBanned);
        script.attestation_denial = Some(Reason::AgentBanned);
    });
    until("nothing is served", || agent.serial().is_none()).await;
    until("the record is gone", || agent.record().is_none()).await;
    assert_eq!(agent.authorities(), 1, "the bundle is no secret");
    assert_eq!(agent.cast_out(), Some(Stands::Banned), "it is not ready");
    let attestations = server.asked().attestations;
    until("it asks now and then", || server.asked().attestations > attestations).await;
    server.play(|script| (script.denial, script.attestation_denial) = (None, None));
    until("it serves again", || agent.serial().is_some()).await;
    assert_eq!(agent.cast_out(), None);
}

//= FLT-A22
#[tokio::test]
async fn an_evicted_agent_that_cannot_attest_again_withdraws_at_once_and_asks_slowly() {
    for code in [Code::InvalidArgument, Code::PermissionDenied] {
        let server = ScriptedServer::start();
        let agent = serving(&server).await;
        server.play(|script| {
            script.denial = Some(Reason::AgentNotAttested);
            script.attestation_refusal = Some(code);
        });
        until("nothing is served", || agent.serial().is_none()).await;
        let attestations = server.asked().attestations;
        assert!(attestations <= 3, "{attestations}");
        assert_eq!(agent.authorities(), 1, "it says that there is no identity");
        assert_eq!(agent.cast_out(), Some(Stands::Evicted), "and is not ready");
        assert!(agent.record().is_some_and(|record| !record.chain.is_empty()), "what a server forgot it may remember");
        server.play(|script| (script.denial, script.attestation_refusal) = (None, None));
        until("the server knows it again", || agent.serial().is_some()).await;
        assert_eq!(agent.cast_out(), None);
    }
}

#[tokio::test]
async fn a_server_that_is_ill_evicts_nobody() {
    for code in [Code::Unavailable, Code::Internal, Code::Unknown, Code::ResourceExhausted] {
        let server = ScriptedServer::start();
        let agent = serving(&server).await;
        let good = agent.serial();
        server.play(|script| {
            script.denial = Some(Reason::AgentNotAttested);
            script.attestation_refusal = Some(code);
        });
        let attestations = server.asked().attestations;
        until("it tries again and again", || server.asked().attestations > attestations + 2).await;
        assert_eq!(agent.serial(), good, "{code:?}");
    }
}

//= FLT-A23
#[tokio::test]
async fn beyond_the_limit_of_entries_it_goes_on_with_what_fits() {
    let server = ScriptedServer::start();
    let agent = serving(&server).await;
    let mine = agent.serial();
    server.play(|script| {
        let others = (0..MAX_ENTRIES).map(|n| Entry {
            // Everything at the limit may be asked for, but nothing is signed in vain.
            store_svid: true,
            created_at: 0,
            ..entry(&format!("e{n}"), "/other", 1)
        });
        let mut entries: Vec<Entry> = others.collect();
        entries.append(&mut script.entries);
        script.entries = entries;
    });
    let syncs = server.asked().syncs;
    until("it stays in sync", || server.asked().syncs > syncs + 1).await;
    assert_eq!(agent.serial(), mine, "what is held goes on being served, though it is not among the oldest");
}

#[tokio::test]
async fn every_other_denial_means_attesting_again_while_serving() {
    for reason in [Reason::AgentExpired, Reason::AgentNotActive, Reason::AgentNotAttested, Reason::AgentMustReattest] {
        let server = ScriptedServer::start();
        let agent = serving(&server).await;
        let good = agent.serial();
        server.play(|script| script.denial = Some(reason));
        until("it attests again", || server.asked().attestations > 1).await;
        assert_eq!(agent.serial(), good, "{reason:?}");
        server.play(|script| script.denial = None);
        let syncs = server.asked().syncs;
        until("it syncs again", || server.asked().syncs > syncs).await;
        assert_eq!(agent.serial(), good, "{reason:?}");
        drop(agent);
    }
}

#[tokio::test]
async fn an_agent_without_a_token_renews_again_when_a_server_that_refused_its_certificate_takes_it_after_all() {
    let server = ScriptedServer::start();
    let agent = serving(&server).await;
    let attestations = server.asked().attestations;
    server.play(|script| {
        script.denial = Some(Reason::AgentExpired);
        script.attestation_refusal = Some(Code::InvalidArgument);
    });
    until("it tries to attest", || server.asked().attestations > attestations).await;
    assert_eq!(server.asked().renewals, 0);
    server.play(|script| script.denial = None);
    until("it renews", || server.asked().renewals > 0).await;
    let attestations = server.asked().attestations;
    let syncs = server.asked().syncs;
    until("it stays in sync", || server.asked().syncs > syncs + 3).await;
    assert_eq!((server.asked().attestations, server.asked().renewals), (attestations, 1));
    assert!(agent.serial().is_some());
}

#[tokio::test]
async fn renews_when_it_cannot_attest_again_and_only_then() {
    for (reattestable, what) in [(false, "renewals"), (true, "attestations")] {
        let server = ScriptedServer::start();
        server.play(|script| (script.reattestable, script.agent_ttl) = (reattestable, 4));
        let agent = serving(&server).await;
        until(what, || match reattestable {
            false => server.asked().renewals >= 2,
            true => server.asked().attestations >= 3,
        })
        .await;
        let asked = server.asked();
        assert_eq!(if reattestable { asked.renewals } else { asked.attestations - 1 }, 0, "{what}");
        drop(agent);
    }
}

#[tokio::test]
async fn a_restarted_agent_uses_the_certificate_it_kept() {
    let server = ScriptedServer::start();
    let agent = serving(&server).await;
    let pem = server.bundle_pem();
    let directory = agent.stop().await;
    let agent = Agent::start_with(&server, &pem, directory);
    until("it serves again", || agent.serial().is_some()).await;
    assert_eq!(server.asked().attestations, 1, "the token is good for one attestation only");
}

#[tokio::test]
async fn a_removed_entry_is_gone_at_the_next_sync_and_a_changed_one_follows() {
    let server = ScriptedServer::start();
    server.play(|script| script.entries.push(entry("second", "/second", 1)));
    let agent = Agent::start(&server);
    until("both are served", || agent.ids().len() == 2).await;
    server.play(|script| script.entries = vec![entry("second", "/renamed", 2)]);
    until("the change is served", || agent.ids() == [format!("spiffe://{TRUST_DOMAIN}/renamed")]).await;
    server.play(|script| script.entries.clear());
    until("nothing is served", || agent.ids().is_empty()).await;
}

#[tokio::test]
async fn asks_in_pages_only_for_what_changed() {
    let server = ScriptedServer::start();
    server.play(|script| {
        script.paged = true;
        script.entries = (0..7).map(|n| entry(&format!("e{n}"), &format!("/w{n}"), 1)).collect();
    });
    let agent = Agent::start(&server);
    until("all are served", || agent.ids().len() == 7).await;
    assert_eq!(server.asked().entries_by_id, 7);
    server.play(|script| {
        script.entries[3] = entry("e3", "/changed", 2);
        script.entries.remove(0);
    });
    until("the change is served", || agent.ids().iter().any(|id| id.ends_with("/changed"))).await;
    assert_eq!((agent.ids().len(), server.asked().entries_by_id), (6, 8));
}

#[tokio::test]
async fn an_older_server_without_sync_is_asked_the_old_way() {
    let server = ScriptedServer::start();
    server.play(|script| script.knows_sync = false);
    let agent = serving(&server).await;
    assert_eq!(agent.ids(), [format!("spiffe://{TRUST_DOMAIN}/workload")]);
}

#[tokio::test]
async fn what_a_tainted_authority_signed_is_replaced_at_once() {
    let server = ScriptedServer::start();
    let agent = serving(&server).await;
    let good = agent.serial();
    server.play(|script| script.tainted = true);
    until("both authorities are published", || agent.authorities() == 2).await;
    until("the SVID is replaced", || agent.serial().is_some() && agent.serial() != good).await;
    until("the agent's certificate is replaced", || server.asked().renewals == 1).await;
}

#[tokio::test]
async fn a_taint_is_obeyed_by_an_agent_that_is_started_anew_before_it_had_another_certificate() {
    let server = ScriptedServer::start();
    let agent = serving(&server).await;
    server.play(|script| {
        script.tainted = true;
        script.agent = AgentLie::OtherKey;
    });
    until("a renewal is refused", || agent.authorities() == 2 && server.asked().renewals > 0).await;
    let directory = agent.stop().await;
    server.play(|script| script.agent = AgentLie::Honest);
    let asked = server.asked().renewals;
    let agent = Agent::start_with(&server, &server.bundle_pem(), directory);
    until("the agent's certificate is replaced", || server.asked().renewals > asked).await;
    until("and it serves", || agent.serial().is_some()).await;
}

#[tokio::test]
async fn short_lived_svids_never_run_out() {
    let server = ScriptedServer::start();
    server.play(|script| script.svid_ttl = 4);
    let agent = serving(&server).await;
    let first = agent.serial();
    let end = Instant::now() + Duration::from_secs(10);
    until("ten seconds", || {
        assert!(agent.serial().is_some(), "a moment without a valid SVID");
        Instant::now() > end
    })
    .await;
    assert_ne!(agent.serial(), first);
}

#[tokio::test]
async fn insecure_bootstrap_believes_the_first_server_and_then_only_that() {
    let mut server = ScriptedServer::start();
    let agent = Agent::start_bootstrapped(&server, Bootstrap::Insecure, tempfile::tempdir().expect("directory"));
    until("it serves", || agent.serial().is_some()).await;
    let good = agent.serial();
    server.stop();
    let impostor = ScriptedServer::start_at(server.address(), ToyCa::new(TRUST_DOMAIN));
    until("the impostor is not believed", || impostor.asked().failed_handshakes > 2).await;
    assert_eq!((agent.serial(), impostor.asked().attestations), (good, 0));
    drop(impostor);
}

fn on_demand(id: &str) -> Entry {
    let attributes = AdditionalAttributes { disable_x509_svid_prefetch: true, ..Default::default() };
    Entry { additional_attributes: Some(attributes), ..entry(id, "/rare", 1) }
}

#[tokio::test]
async fn an_svid_on_demand_is_signed_when_it_is_first_asked_for_without_a_sync_and_kept_up_from_then_on() {
    let server = ScriptedServer::start();
    server.play(|script| {
        (script.entries, script.svid_ttl) = (vec![entry("workload", "/workload", 1), on_demand("rare")], 4)
    });
    let agent = serving(&server).await;
    until("several syncs", || server.asked().syncs > 5).await;
    assert_eq!(agent.ids(), [format!("spiffe://{TRUST_DOMAIN}/workload")], "not in advance");
    assert_eq!(agent.identities.borrow().unsigned_for(&selectors()).len(), 1);
    agent.requests.ask(rare()).await;
    assert_eq!(agent.ids().len(), 2, "the answer comes when it is there");
    let first = agent.serials();
    until("it is renewed though nobody asks again", || {
        agent.ids().len() == 2 && agent.serials().iter().all(|serial| !first.contains(serial))
    })
    .await;
}

#[tokio::test]
async fn while_the_server_is_away_no_request_of_a_workload_makes_the_agent_dial_and_it_is_done_when_it_is_back() {
    let mut server = ScriptedServer::start();
    server.play(|script| script.entries.push(on_demand("rare")));
    let agent = serving(&server).await;
    server.stop();
    // The first one finds out that the server is gone.
    agent.requests.ask(rare()).await;
    let began = Instant::now();
    for _ in 0..200 {
        agent.requests.ask(rare()).await;
    }
    assert!(began.elapsed() < DEADLINE, "each is answered at once");
    assert_eq!(agent.ids().len(), 1);
    server.start_again();
    until("it is signed with the next sync", || agent.ids().len() == 2).await;
}

#[tokio::test]
async fn requests_of_workloads_without_pause_do_not_keep_the_agent_from_asking_the_server_for_changes() {
    let server = ScriptedServer::start();
    server.play(|script| script.entries.push(on_demand("rare")));
    let agent = serving(&server).await;
    let requests = agent.requests.clone();
    let asking = tokio::spawn(async move {
        loop {
            requests.ask(rare()).await;
        }
    });
    until("it is asked for", || agent.ids().len() == 2).await;
    let syncs = server.asked().syncs;
    until("it polls all the same", || server.asked().syncs > syncs + 3).await;
    server.play(|script| script.entries.clear());
    until("what was removed is gone", || agent.ids().is_empty()).await;
    asking.abort();
}
