use super::*;
use crate::agent_key::{KeyOf, KeyPlace, WorkloadKeyKind};
use crate::config::{BundleSource, JoinToken, LocalAuthorityConfig, RebootstrapMode, TrustBundleFormat};
use crate::requests::Requests;
use crate::server_answers::AgentSvid;
use crate::trusted_time::{BUILD_UNIX, Jumps, Keeper, Moment, Reading, Span, TimeRecord};

const INTERVAL: Duration = Duration::from_secs(5);
/// Seconds that the agent's certificate lasts in all.
const LIFE: i64 = 3600;

/// An agent that was in sync a moment ago and is told of changes, though every poll of its server fails. `slept`: for how many
/// seconds the device has been asleep since the agent got its certificate.
fn listening_after(slept: i64) -> Synchronizer {
    let trust_domain = TrustDomain::new("td").expect("legal");
    let time = TrustedTime::new();
    let mut agent = Synchronizer::new(Parts {
        server: Server::new("127.0.0.1", 1, &trust_domain, time.clone()),
        bootstrap: Bootstrap::Insecure,
        rebootstrap: Rebootstrap { mode: RebootstrapMode::Never, delay: Duration::ZERO },
        attestor: Attestor::JoinToken(Some(JoinToken::new("token"))),
        keys: KeyStore::open(KeyPlace::Memory, KeyOf::Agent),
        local_authority: None,
        heads: IssuanceHeads::in_memory(),
        memory: Memory::plain("/nonexistent".into()),
        sync_interval: INTERVAL,
        max_age: None,
        allow_executable_only: false,
        workload_keys: WorkloadKeyKind::default(),
        wit_svids: false,
        publisher: watch::channel(Arc::new(Identities::starting(trust_domain.clone()))).0,
        reporter: watch::channel(Report::default()).0,
        link: watch::channel(None).0,
        local_tokens: watch::channel(None).0,
        counted: Arc::default(),
        shown: OwnCertificate::default(),
        number: ServerNumber::FIRST,
        bans: Bans::default(),
        trust_domain,
        time,
    });
    let now = Reading::now();
    let then = Reading { boot: now.boot - slept, kernel: now.kernel - slept };
    let span = Span { not_before: then.kernel, not_after: then.kernel + LIFE };
    let mut keeper = Keeper::new(BUILD_UNIX, then);
    let svid = AgentSvid::unchecked(keeper.receive(span.not_before, span, then));
    // The monotonic clock stood still: by it, the certificate has just been taken up.
    let known = Agent::new(svid, false, LIFE, Instant::now(), &Moment::new(keeper, then));
    agent.standing = Standing::Attested(known);
    agent.pushes = Pushes::listening(Duration::ZERO, 0);
    agent.next_poll = Instant::now() + 12 * INTERVAL;
    agent
}

async fn turn(agent: &mut Synchronizer, wake: Wake) -> Sleep {
    let (_stop, stopping) = watch::channel(false);
    let (_requests, waiting) = Requests::channel();
    agent.turn(wake, &mut Wakes::new(stopping, Arc::default(), waiting, Jumps::channel().1)).await
}

/// In how many seconds, rounded.
fn in_seconds(at: Instant) -> i64 {
    (at.saturating_duration_since(Instant::now()).as_secs_f64().round() as u64).cast_signed()
}

#[tokio::test]
async fn an_agent_that_is_told_of_changes_sleeps_until_something_is_due_and_asks_nobody_without_need() {
    let mut agent = listening_after(0);
    agent.next_poll = Instant::now() + Duration::from_secs(86_400);
    let sleep = turn(&mut agent, Wake::Jump).await;
    assert_eq!(agent.failures, 0, "nobody was asked");
    assert!(agent.pushes.is_listening());
    // The half of its life, give or take a tenth; after that, by the agent's own clock.
    assert!((1_600..=2_000).contains(&in_seconds(sleep.poll)), "{sleep:?}");
    assert_eq!(in_seconds(agent.next_contact()), in_seconds(sleep.poll), "what people are told is no later");
    assert!((2_150..=2_160).contains(&in_seconds(sleep.due.expect("some time"))), "{sleep:?}");
}

#[tokio::test]
async fn after_a_sleep_the_agents_own_clock_says_when_something_is_due() {
    let mut agent = listening_after(2_000);
    agent.next_poll = Instant::now() + Duration::from_secs(86_400);
    let sleep = turn(&mut agent, Wake::Jump).await;
    assert_eq!(agent.failures, 0, "nothing is due yet");
    assert!((150..=160).contains(&in_seconds(sleep.due.expect("before the schedule"))), "{sleep:?}");
}

#[tokio::test]
async fn a_certificate_that_came_due_while_the_device_slept_is_replaced_once_it_is_told_so() {
    for wake in [Wake::Jump, Wake::Due] {
        let mut agent = listening_after(LIFE - 60);
        turn(&mut agent, wake).await;
        assert_eq!(agent.failures, 1, "it polled");
        assert!(!agent.pushes.is_listening());
    }
}

#[tokio::test]
async fn a_jump_of_the_clock_asks_no_server_that_is_away() {
    let mut agent = listening_after(LIFE - 60);
    agent.failures = 3;
    let sleep = turn(&mut agent, Wake::Jump).await;
    assert_eq!((agent.failures, sleep.due), (3, None), "the back-off decides");
}

#[tokio::test]
async fn after_a_long_sleep_the_server_is_asked_at_once_over_a_new_connection_and_after_a_short_one_it_is_not() {
    for (seconds, failures, asked) in [(5, 0, false), (3_600, 0, true), (3_600, 3, true), (5, 3, false)] {
        let mut agent = listening_after(0);
        (agent.failures, agent.awake) = (failures, Awake::before_a_sleep_of(seconds));
        turn(&mut agent, Wake::Jump).await;
        assert_eq!(
            agent.failures,
            failures + u32::from(asked),
            "asleep for {seconds} s, {failures} failures before it"
        );
        assert_eq!(agent.pushes.is_listening(), !asked, "asleep for {seconds} s");
    }
}

/// Its timers stood still over many short sleeps; the agent's own clock did not.
#[tokio::test]
async fn a_ca_of_the_agents_own_that_came_due_while_the_device_slept_is_asked_for_once_it_is_told_so() {
    let life = Duration::from_secs(3600);
    let config = LocalAuthorityConfig { ca_ttl: life, max_offline: life, default_x509_svid_ttl: life, jwt_svids: None };
    for (slept, asked) in [(200, false), (400, true)] {
        let directory = tempfile::tempdir().expect("directory");
        let mut agent = listening_after(0);
        let mut authority =
            LocalAuthority::open(config.clone(), KeyPlace::Memory, directory.path()).expect("directories");
        let now = Reading::now();
        let then = Reading { boot: now.boot - slept, kernel: now.kernel - slept };
        // It was refused then, and is asked for again five minutes later.
        authority.postpone(&Moment::new(Keeper::new(BUILD_UNIX, now), then));
        agent.parts.local_authority = Some(authority);
        turn(&mut agent, Wake::Jump).await;
        assert_eq!(agent.failures, u32::from(asked), "it polled, or did not: asleep for {slept} s");
    }
}

/// An authority of "td".
fn authority(year: i32) -> rcgen::Certificate {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("params");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(year, 1, 1);
    params.self_signed(&rcgen::KeyPair::generate().expect("key")).expect("root")
}

/// As a server would tell it.
fn bundle_of(authorities: &[&rcgen::Certificate]) -> Arc<TrustBundle> {
    let authorities = authorities.iter().map(|authority| (&authority.der()[..], false));
    Arc::new(TrustBundle::new(&TrustDomain::new("td").expect("legal"), authorities).expect("bundle"))
}

fn bundle() -> Arc<TrustBundle> {
    bundle_of(&[&authority(2020)])
}

//= FLT-N1
#[tokio::test]
async fn an_authority_that_was_held_and_revoked_does_not_come_back_by_the_configured_bundle() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("bootstrap.pem");
    let (first, revoked, later) = (authority(2020), authority(2021), authority(2022));
    let mut agent = listening_after(0);
    let in_file = BundleSource::File { path: path.clone(), format: TrustBundleFormat::Pem };
    agent.parts.bootstrap = Bootstrap::TrustBundle(in_file);
    agent.adopt_bundle(bundle_of(&[&first, &revoked]));
    agent.adopt_bundle(bundle_of(&[&first]));
    let place = |authority: &rcgen::Certificate| std::fs::write(&path, authority.pem()).expect("written");
    assert!(agent.placed_bundle().await.is_none(), "there is no file");
    place(&revoked);
    assert!(agent.placed_bundle().await.is_none(), "newer than what is held now");
    let kept = agent.record(bundle_of(&[&first]), TimeRecord::default(), &agent.parts.time.moment());
    let mut restarted = listening_after(0);
    restarted.parts.bootstrap = agent.parts.bootstrap.clone();
    restarted.restore_record(kept, super::restore::Boot::AsRecorded);
    assert!(restarted.placed_bundle().await.is_none(), "after a restart too");
    place(&later);
    assert!(agent.placed_bundle().await.is_some() && restarted.placed_bundle().await.is_some());
}

#[tokio::test]
async fn what_could_not_be_kept_is_tried_again_after_a_pause_though_nothing_changes_meanwhile() {
    // Its directory is not there.
    let mut agent = listening_after(0);
    agent.bundle = Some(bundle());
    agent.changes.any = true;
    let pause = agent.keep(false).await.expect("it does not wait for the next change");
    assert!(!pause.is_zero() && pause <= Duration::from_secs(60), "{pause:?}");
    let again = agent.keep(false).await.expect("nor forget it");
    assert!(!again.is_zero() && again <= pause, "not at once: {again:?}");
}

#[tokio::test]
async fn a_server_is_asked_as_often_as_its_bundle_hints_but_by_no_agent_that_is_to_be_silent() {
    let bundle = |hint| Some(Arc::new(TrustBundle::clone(&bundle()).with_jwt(&[], hint)));
    let seconds = Duration::from_secs;
    let mut agent = listening_after(0);
    agent.pushes.hang_up();
    for (interval, hint, expected) in
        [(300, 0, 300), (300, 60, 60), (300, 3000, 300), (300, 1, 5), (300, -9, 300), (3600, 60, 3600)]
    {
        (agent.parts.sync_interval, agent.bundle) = (seconds(interval), bundle(hint));
        agent.pushes = Pushes::new(agent.parts.sync_interval);
        assert_eq!(agent.poll_pause(0.5), seconds(expected), "{interval} s, hint {hint}");
    }
}

/// One that serves, has kept what there is, and was confirmed at 1.
async fn kept_in(directory: &std::path::Path) -> Synchronizer {
    let mut agent = listening_after(0);
    agent.parts.memory = Memory::plain(directory.to_owned());
    agent.adopt_bundle(bundle());
    agent.publish_anyway();
    (agent.changes.any, agent.synced_unix) = (true, 1);
    agent.keep(true).await;
    assert_eq!(agent.kept.confirmed_at(), 1);
    agent
}

#[tokio::test]
async fn at_an_orderly_end_the_servers_last_word_is_kept_where_what_is_kept_ends_without_it() {
    let directory = tempfile::tempdir().expect("directory");
    for (max_age, kept) in [(None, 1), (Some(Duration::from_secs(3600)), 2)] {
        let mut agent = kept_in(directory.path()).await;
        (agent.parts.max_age, agent.synced_unix) = (max_age, 2);
        agent.keep(false).await;
        assert_eq!(agent.kept.confirmed_at(), 1, "not before it is due");
        agent.keep(true).await;
        assert_eq!(agent.kept.confirmed_at(), kept, "{max_age:?}");
    }
}

#[tokio::test]
async fn a_sealed_cache_of_before_goes_with_the_first_word_that_is_kept_without_it_and_with_a_ban() {
    let directory = tempfile::tempdir().expect("directory");
    let sealed = directory.path().join(crate::sealed_cache::FILE_NAME);
    std::fs::write(&sealed, b"of before").expect("written");
    let mut agent = kept_in(directory.path()).await;
    assert!(!sealed.exists(), "what the server took away since would come back with it");
    std::fs::write(&sealed, b"of before").expect("written");
    agent.parts.memory.wipe().await.expect("wiped");
    assert!(!sealed.exists() && !directory.path().join("agent-data.json").exists());
}
