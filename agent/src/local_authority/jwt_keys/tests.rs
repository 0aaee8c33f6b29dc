use ironroot_api::TrustDomain;
use ironroot_api::jwt::{Audiences, UnverifiedJwtSvid};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};

use super::super::{NoMandate, TokenToMint};
use super::*;
use crate::server_answers::{CertificateTerms, EntryTerms};
use crate::trusted_time::{BUILD_UNIX, Keeper, Reading};

const MAX_OFFLINE: Duration = Duration::from_secs(3600);

fn bundle(keys: &[JwtKey]) -> TrustBundle {
    let mut ca = CertificateParams::new(Vec::new()).expect("params");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = ca.self_signed(&KeyPair::generate().expect("a key")).expect("root");
    let trust_domain = TrustDomain::new("td").expect("legal");
    TrustBundle::new(&trust_domain, [(&root.der()[..], false)]).expect("bundle").with_jwt(keys, 0)
}

/// A clock that a server has confirmed just now.
fn confirmed() -> TrustedTime {
    let (time, now) = (TrustedTime::new(), crate::trusted_time::system_unix());
    time.receive(now, Span { not_before: now, not_after: now + 60 });
    time
}

struct Lab {
    keys: JwtKeys,
    time: TrustedTime,
    journal: Arc<Mutex<Journal>>,
    _directory: tempfile::TempDir,
}

fn lab(issuer: Option<&str>) -> Lab {
    let directory = tempfile::tempdir().expect("directory");
    let config = LocalJwtConfig { default_ttl: Duration::from_secs(300), issuer: issuer.map(str::to_owned) };
    prepare_private(&super::directory(directory.path())).expect("made");
    let keys = JwtKeys::open(config, MAX_OFFLINE, KeyPlace::Memory, directory.path()).expect("opened");
    let journal = Arc::new(Mutex::new(Journal::open(directory.path())));
    Lab { keys, time: confirmed(), journal, _directory: directory }
}

impl Lab {
    async fn prepare(&mut self, key_id: &str) -> JwtKey {
        self.keys.prepare(key_id.to_owned(), self.time.now_unix()).await.expect("made")
    }

    fn follow(&mut self, keys: &[JwtKey]) -> bool {
        self.keys.follow(&bundle(keys), &self.time)
    }

    /// Whether another key is due that many seconds from now, of which the device may have slept any.
    fn is_due_in(&self, seconds: i64) -> bool {
        let now = Reading::now();
        let later = Reading { boot: now.boot + seconds, kernel: now.kernel + seconds };
        self.keys.is_due(&Moment::new(Keeper::new(BUILD_UNIX, now), later))
    }

    fn signs(&self) -> Option<&str> {
        self.keys.held.as_ref().map(|held| held.key_id.as_str())
    }

    /// The claims and the key ID of a token for `terms`, as whoever has the bundle reads them.
    async fn signed(&self, terms: &EntryTerms, synced_unix: i64, keys: &[JwtKey]) -> Result<Value, String> {
        let signer = self.keys.signer(&self.journal, synced_unix).ok_or("no key")?;
        let audiences = Audiences::try_new(vec!["b".to_owned(), "a".to_owned()]).expect("legal");
        let wanted = TokenToMint::of(terms, &audiences).ok_or("not signable")?;
        let mandate = signer.mandate(&self.time.moment()).map_err(|why| why.to_string())?;
        let token = signer.sign(mandate, wanted).await.map_err(|error| error.to_string())?;
        let svid = UnverifiedJwtSvid::parse(&token).and_then(|token| token.verify(bundle(keys).jwt_authorities()));
        Ok(Value::Object(svid.map_err(|refusal| refusal.to_string())?.claims().clone()))
    }
}

fn terms(ttl: i32) -> EntryTerms {
    let certificate = CertificateTerms { jwt_ttl_seconds: Some(ttl), ..CertificateTerms::default() };
    EntryTerms { certificate: Some(certificate), ..EntryTerms::example("e", "/w") }
}

#[tokio::test]
async fn a_key_signs_only_while_the_bundle_has_it_untainted_and_not_ended() {
    let mut lab = lab(None);
    let key = lab.prepare("7").await;
    assert!(lab.is_due_in(0) && lab.signs().is_none(), "made, and not published");
    assert!(!lab.follow(&[]) && lab.signs().is_none());
    let ended = JwtKey { expires_at: lab.time.now_unix(), ..key.clone() };
    let tainted = JwtKey { tainted: true, ..key.clone() };
    let foreign = JwtKey { key_id: "7".to_owned(), ..Lab::prepare(&mut self::lab(None), "7").await };
    for not_it in [ended, tainted.clone(), foreign] {
        assert!(!lab.follow(&[not_it]) && lab.signs().is_none());
    }
    assert!(lab.follow(std::slice::from_ref(&key)) && lab.signs() == Some("7"));
    assert!(!lab.follow(std::slice::from_ref(&key)), "no news");
    assert!(!lab.is_due_in(0));
    for gone in [vec![], vec![tainted]] {
        assert!(lab.follow(&gone) && lab.signs().is_none());
        assert!(lab.is_due_in(0), "another is to be published");
        assert!(lab.follow(std::slice::from_ref(&key)));
    }
    let refused = lab.signed(&terms(0), 0, &[key]).await.expect_err("the server's last word is long ago");
    assert!(refused.contains("max_offline is over"), "{refused}");
}

#[tokio::test]
async fn the_newer_of_two_published_keys_signs_and_the_older_keeps_its_place_until_then() {
    let mut lab = lab(None);
    let first = lab.prepare("1").await;
    lab.follow(std::slice::from_ref(&first));
    let second = lab.prepare("2").await;
    assert!(!lab.follow(std::slice::from_ref(&first)) && lab.signs() == Some("1"), "one that is not published yet");
    let second = JwtKey { expires_at: first.expires_at + 5, ..second };
    assert!(lab.follow(&[first.clone(), second.clone()]) && lab.signs() == Some("2"));
    lab.prepare("3").await;
    assert!(!lab.follow(&[first, second]) && lab.signs() == Some("2"));
}

#[tokio::test]
async fn a_server_makes_no_key_last_longer_than_it_was_to_be_published_for() {
    let mut lab = lab(None);
    let key = lab.prepare("7").await;
    let now = lab.time.now_unix();
    assert!((key.expires_at - now - 7200).abs() <= 2, "twice max_offline");
    lab.follow(&[JwtKey { expires_at: i64::MAX, ..key }]);
    let held = lab.keys.held.as_ref().expect("it signs");
    assert!(held.lifetime.span().not_after <= now + 7202);
}

#[tokio::test]
async fn what_is_signed_is_the_entrys_and_ends_with_the_key_and_with_the_longest_absence() {
    let mut lab = lab(Some("https://issuer.example"));
    let key = [lab.prepare("7").await];
    lab.follow(&key);
    let now = lab.time.now_unix();
    let claims = lab.signed(&terms(0), now, &key).await.expect("signed");
    let life = |claims: &Value| claims["exp"].as_i64().expect("a number") - claims["iat"].as_i64().expect("a number");
    assert_eq!((life(&claims), &claims["aud"], &claims["sub"]), (300, &json!(["a", "b"]), &json!("spiffe://td/w")));
    assert_eq!((&claims["iss"], claims.get("jti")), (&json!("https://issuer.example"), None));
    assert_eq!(life(&lab.signed(&terms(60), now, &key).await.expect("signed")), 60);
    let long = lab.signed(&terms(i32::MAX), now, &key).await.expect("signed");
    assert!((3590..=3600).contains(&life(&long)), "no longer than max_offline: {long}");
    let short = JwtKey { expires_at: now + 30, ..key[0].clone() };
    lab.follow(&[short]);
    let until = lab.signed(&terms(300), now, &key).await.expect("signed")["exp"].as_i64().expect("a number");
    assert!(until <= now + 30, "nor than the key");
    let unique = EntryTerms { unique_tokens: Some(true), ..terms(60) };
    let [one, other] = [&unique, &unique].map(|unique| lab.signed(unique, now, &key));
    let (one, other) = (one.await.expect("signed"), other.await.expect("signed"));
    assert!(one["jti"].as_str().is_some_and(|id| id.len() == 22) && one["jti"] != other["jti"]);
    assert_eq!(super::super::lock(&lab.journal).len(), 6, "each is noted");
}

#[tokio::test]
async fn nothing_is_signed_for_entries_with_power_over_the_server_or_keys_in_hardware_or_of_which_too_little_is_known()
{
    let mut lab = lab(None);
    let key = [lab.prepare("7").await];
    lab.follow(&key);
    let now = lab.time.now_unix();
    let selected = |selector: &str| EntryTerms {
        selectors: std::iter::once(selector.parse().expect("legal")).collect(),
        ..terms(60)
    };
    for not_signable in [
        EntryTerms { is_privileged: Some(true), ..terms(60) },
        EntryTerms { is_privileged: None, ..terms(60) },
        EntryTerms { certificate: None, ..terms(60) },
        EntryTerms { certificate: Some(CertificateTerms::default()), ..terms(60) },
        selected("ironroot:hardware_key"),
        selected("ironroot:local_authority"),
    ] {
        assert_eq!(lab.signed(&not_signable, now, &key).await, Err("not signable".to_owned()), "{not_signable:?}");
    }
    assert!(super::super::lock(&lab.journal).is_empty());
}

#[tokio::test]
async fn what_the_disk_does_not_take_is_not_handed_out() {
    let mut lab = lab(None);
    let key = [lab.prepare("7").await];
    lab.follow(&key);
    std::fs::create_dir(lab._directory.path().join("issued.json")).expect("an obstacle");
    let refused = lab.signed(&terms(60), lab.time.now_unix(), &key).await.expect_err("it cannot be noted");
    assert!(refused.contains("cannot be noted"), "{refused}");
}

#[tokio::test]
async fn a_key_that_was_kept_is_taken_up_if_the_bundle_that_was_kept_has_it() {
    let mut lab = lab(None);
    let key = lab.prepare("7").await;
    lab.follow(std::slice::from_ref(&key));
    let moment = lab.time.moment();
    let kept = lab.keys.to_keep(&moment).expect("it signs");
    lab.keys.held = None;
    for (bundle, taken) in [
        (bundle(&[]), false),
        (bundle(&[JwtKey { tainted: true, ..key.clone() }]), false),
        (bundle(&[Lab::prepare(&mut self::lab(None), "7").await]), false),
        (bundle(&[key]), true),
    ] {
        assert_eq!(lab.keys.restore(&kept, &bundle, &moment).is_ok(), taken);
        assert_eq!(lab.signs().is_some(), taken);
    }
    let over = KeptJwtKey { left: 0, ..kept };
    lab.keys.restore(&over, &bundle(&[]), &moment).expect_err("not in the bundle");
    lab.keys.forget();
    assert!(lab.keys.signer(&lab.journal, 0).is_none() && lab.keys.to_keep(&moment).is_none());
    lab.keys.wipe_if_owed().await.expect("destroyed");
    assert_eq!(lab.keys.keys.kept().count(), 0);
}

#[tokio::test]
async fn a_key_that_is_to_be_destroyed_is_not_taken_up_again_and_one_that_is_made_later_is_not_destroyed() {
    let mut lab = lab(None);
    let banned = lab.prepare("7").await;
    lab.follow(std::slice::from_ref(&banned));
    lab.keys.forget();
    assert!(!lab.follow(std::slice::from_ref(&banned)) && lab.signs().is_none(), "a ban is not undone by a bundle");
    let next = lab.prepare("8").await;
    lab.keys.wipe_if_owed().await.expect("nothing is owed");
    assert!(lab.follow(&[banned, next]) && lab.signs() == Some("8"));
    assert_eq!(lab.keys.keys.kept().count(), 1);
}

#[test]
fn the_words_say_whose_end_it_is() {
    assert!(NoMandate::JwtKeyEnds { not_after: 0 }.to_string().contains("key for JWT-SVIDs ends"));
}

#[test]
fn another_key_is_published_when_half_of_the_last_is_over_and_never_at_once() {
    let renewal = |left, life| renewal_in(left, life).as_secs();
    assert_eq!((renewal(7200, 7200), renewal(5000, 7200), renewal(3600, 7200)), (3600, 1400, 60));
    assert_eq!((renewal(-5, 7200), renewal(0, 40), renewal(0, 4)), (60, 5, 1));
}

/// Each sleep is too short to be noticed by itself; the agent's own clock goes on over them.
#[tokio::test]
async fn over_sleeps_of_the_device_another_key_is_due_as_much_sooner() {
    let mut lab = lab(None);
    let key = lab.prepare("7").await;
    assert!(lab.follow(&[key]));
    assert!(!lab.is_due_in(3590) && lab.is_due_in(3610), "half of its life");
    lab.keys.await_it(&lab.time.moment());
    assert!(!lab.is_due_in(290) && lab.is_due_in(310), "and so is a pause");
}

#[test]
fn keys_that_a_server_keeps_for_a_day_after_their_end_pile_up_where_the_longest_absence_is_short() {
    let mut lab = lab(None);
    assert_eq!((lab.keys.piled_up(), lab.keys.piled_up()), (Some(26), None), "an hour; told once");
    lab.keys.is_pile_told = false;
    lab.keys.max_offline = Duration::from_secs(3 * 3600);
    assert_eq!(lab.keys.piled_up(), None);
}

#[tokio::test]
async fn a_published_key_is_missed_only_if_a_later_bundle_lacks_it_and_not_replaced_meanwhile() {
    let mut lab = lab(None);
    let key = lab.prepare("7").await;
    lab.keys.await_it(&lab.time.moment());
    lab.keys.ask_soon();
    assert!(!lab.is_due_in(0), "its place is not taken by another");
    assert!(lab.follow(std::slice::from_ref(&key)) && !lab.keys.is_missed(), "it came");
    lab.keys.await_it(&lab.time.moment());
    assert!(lab.keys.is_missed() && !lab.keys.is_missed(), "told once");
}

#[tokio::test]
async fn a_key_that_the_record_does_not_name_yet_is_to_be_kept_before_the_next_takes_a_place() {
    let mut lab = lab(None);
    let key = lab.prepare("7").await;
    assert!(!lab.keys.must_be_kept_first(), "none is used");
    lab.follow(std::slice::from_ref(&key));
    assert!(lab.keys.must_be_kept_first());
    lab.keys.note_kept();
    assert!(!lab.keys.must_be_kept_first());
    let next = lab.prepare("8").await;
    lab.follow(&[next]);
    assert!(lab.keys.must_be_kept_first(), "the record names the one before");
}
