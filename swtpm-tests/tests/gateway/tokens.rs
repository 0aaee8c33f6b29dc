//! JWT-SVIDs of a gateway: its key is in the bundle before it signs anything, and signs for its own workloads while the server is away.

use std::path::{Path, PathBuf};

use ironroot_lab::jwt::{Jwks, parts};
use serde_json::Value;

use super::*;

/// `jwt_svids`, and an issuer.
const TOKENS: &str = "jwt_svids = true\n jwt_issuer = \"https://issuer.example\"";

/// What `api fetch jwt` says to `uid`: the token, and the key IDs of the bundle that came with it.
fn fetch_jwt(device: &Device, uid: u32, audience: &str) -> Result<(String, Vec<String>), String> {
    let output = device.api(uid, &["fetch", "jwt", "-output", "json", "-audience", audience]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let token = json[0]["svids"][0]["svid"].as_str().expect("a token").to_owned();
    let jwks = json[1]["bundles"][format!("spiffe://{TRUST_DOMAIN}")].as_str().expect("a bundle");
    let jwks = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, jwks).expect("base64");
    let jwks: Value = serde_json::from_slice(&jwks).expect("JSON");
    let keys = jwks["keys"].as_array().expect("a list").iter();
    Ok((token, keys.map(|key| key["kid"].as_str().expect("a text").to_owned()).collect()))
}

fn key_id(token: &str) -> String {
    parts(token).0["kid"].as_str().expect("a key ID").to_owned()
}

fn validates(device: &Device, audience: &str, token: &str) -> bool {
    device.api(BOB, &["validate", "jwt", "-audience", audience, "-svid", token]).status.success()
}

impl Lab {
    /// The ID of the key that the agent signs with; it is in the server's bundle.
    fn expect_key(&self) -> String {
        self.device.expect_log("has changed what this agent signs JWT-SVIDs with");
        let log = self.device.log();
        let line = log.lines().rfind(|line| line.contains("has changed what this agent signs")).expect("the line");
        let key = line.split("by key ").nth(1).expect("a key");
        key.chars().take_while(char::is_ascii_digit).collect()
    }

    /// Alice's token for an audience that nobody has asked for, when the server is known to be away.
    fn expect_own_token(&self, audience: &str) -> String {
        let fetched = || fetch_jwt(&self.device, ALICE, audience).ok();
        let why = || format!("{:?}\n{}", fetch_jwt(&self.device, ALICE, audience), self.device.log());
        wait_for(DEADLINE, fetched).unwrap_or_else(|| panic!("no token: {}", why())).0
    }

    fn published(&self) -> Vec<String> {
        Jwks::printed_by(&self.server).key_ids().into_iter().map(str::to_owned).collect()
    }
}

fn goes_on(lab: &mut Lab) -> String {
    lab.device.start();
    lab.device.expect_identity(ALICE);
    let key = lab.expect_key();
    assert!(lab.published().contains(&key), "{key} is published before it signs: {:?}", lab.published());
    lab.server.kill();
    key
}

#[test]
fn a_workload_gets_tokens_for_new_audiences_while_the_server_is_away_and_the_server_hears_of_it() {
    let mut lab = lab(TOKENS, DOWNSTREAM);
    let admin_lines = ["-admin"];
    lab.server.create_entry(&lab.parent, "/root", &["unix:uid:60003"], &admin_lines);
    lab.device.start();
    lab.device.expect_identity(ALICE);
    let key = lab.expect_key();
    let of_the_server =
        fetch_jwt(&lab.device, ALICE, "before").unwrap_or_else(|error| panic!("{error}\n{}", lab.device.log()));
    assert!(key_id(&of_the_server.0) != key && of_the_server.1.contains(&key), "the server signs while it is there");
    let published = Jwks::printed_by(&lab.server);
    lab.device.expect_identity(60_003);
    lab.server.kill();

    let token = lab.expect_own_token("new");
    let now = ironroot_agent::trusted_time::system_unix();
    let claims = published.verify(&token, "new", now).expect("anybody who has the bundle takes it");
    assert_eq!(
        (key_id(&token), &claims["iss"], &claims["sub"]),
        (key.clone(), &"https://issuer.example".into(), &id("/alice").into())
    );
    assert_eq!((&claims["aud"], claims.get("jti")), (&serde_json::json!(["new"]), None));
    let (iat, exp) = (claims["iat"].as_i64().expect("a number"), claims["exp"].as_i64().expect("a number"));
    assert_eq!(exp - iat, 300, "SPIRE's default");
    assert!(validates(&lab.device, "new", &token) && !validates(&lab.device, "other", &token));
    assert_eq!(fetch_jwt(&lab.device, ALICE, "new").expect("held").0, token, "no other while this one is good");
    assert_eq!(fetch_jwt(&lab.device, ALICE, "before").expect("held").0, of_the_server.0);
    let refused = fetch_jwt(&lab.device, 60_003, "new").expect_err("an administrator's");
    assert!(refused.contains("the server cannot be reached"), "{refused}");
    let journal = lab.device.data_directory().join("local-authority/issued.json");
    let noted = std::fs::read_to_string(&journal).expect("on the disk");
    assert!(noted.contains("\"audience\":\"new\"") && noted.contains(&key), "{noted}");

    lab.server.restart();
    lab.device.expect_log("the server knows what this agent has signed");
    let told = format!("{} JWT-SVID by key {key} audience new, entry ", id("/alice"));
    assert!(
        lab.server.log().lines().any(|line| line.contains("ReportIssued") && line.contains(&told)),
        "{}",
        lab.server.log()
    );
    let config = lab.server.config_path();
    let kept = lab.server.cli(&["log", "show", "-last", "100", "-config", config.to_str().expect("UTF-8")]);
    assert!(kept.contains(&told), "{kept}");
    let signs_again = || fetch_jwt(&lab.device, ALICE, "later").is_ok_and(|(token, _)| key_id(&token) != key);
    expect_within(DEADLINE, "the server signs again", || lab.device.log(), signs_again);
}

#[test]
fn a_device_that_is_rebooted_without_its_server_signs_with_the_key_in_its_chip() {
    let mut lab = lab(TOKENS, DOWNSTREAM);
    let key = goes_on(&mut lab);
    let before = lab.expect_own_token("before");
    assert!(lab.device.process().expect("it runs").terminate(), "{}", lab.device.log());
    lab.device.power_cycle();
    lab.device.start();
    lab.device.expect_log("own key for JWT-SVIDs is taken up again");
    let after = lab.expect_own_token("after");
    assert_eq!((key_id(&before), key_id(&after)), (key.clone(), key.clone()));
    assert!(validates(&lab.device, "before", &before) && validates(&lab.device, "after", &after));
    assert!(fetch_jwt(&lab.device, ALICE, "after").expect("held").1.contains(&key), "what peers on the device get");
    lab.server.restart();
    let told =
        || ["before", "after"].iter().all(|audience| lab.server.log().contains(&format!("audience {audience}, entry")));
    expect_within(DEADLINE, "what was signed before and after is reported", || lab.device.log(), told);
    assert_eq!(lab.published().iter().filter(|known| **known == key).count(), 1);
    assert_eq!(lab.published().len(), 2, "the server's and this one: none is published for a reboot");
}

#[test]
fn an_agent_with_its_keys_in_a_token_signs_there() {
    let token = SoftHsm::new();
    let agent = AgentOptions { key_manager_block: Some(token.key_manager()), ..AgentOptions::default() };
    let device = |maker: &Manufacturer| Device::manufacture(maker).with_token(&token);
    let server = ServerOptions { require_resident_key: false, ..ServerOptions::default() };
    let mut lab = lab_on(server, device, agent, TOKENS, DOWNSTREAM);
    let key = goes_on(&mut lab);
    assert_eq!(key_id(&lab.expect_own_token("new")), key);
}

#[test]
fn an_agent_with_its_keys_on_disk_goes_on_with_its_published_key_after_a_restart() {
    let agent = AgentOptions { key_manager: "disk", ..AgentOptions::default() };
    let server = ServerOptions { require_resident_key: false, ..ServerOptions::default() };
    let mut lab = lab_on(server, Device::manufacture, agent, TOKENS, DOWNSTREAM);
    let key = goes_on(&mut lab);
    assert_eq!(key_id(&lab.expect_own_token("new")), key);
    assert!(jwt_directory(&lab.device).join("keys.json").exists());
    lab.server.restart();
    lab.device.kill_agent();
    lab.device.start();
    lab.device.expect_identity(ALICE);
    assert_eq!((lab.expect_key(), lab.published().len()), (key, 2));
}

fn jwt_directory(device: &Device) -> PathBuf {
    device.data_directory().join("local-authority/jwt")
}

fn keys_in(directory: &Path) -> usize {
    let files = std::fs::read_dir(directory).expect("a directory");
    files.filter(|file| file.as_ref().expect("a file").path().extension().is_some_and(|kind| kind == "tpm")).count()
}

#[test]
fn a_ban_takes_the_key_out_of_the_chip_and_out_of_the_bundle() {
    let mut lab = lab(TOKENS, DOWNSTREAM);
    lab.device.start();
    lab.device.expect_identity(ALICE);
    let (key, directory) = (lab.expect_key(), jwt_directory(&lab.device));
    assert!(lab.published().contains(&key) && keys_in(&directory) > 0);
    lab.server.cli(&["agent", "ban", "-spiffeID", &lab.device.agent_id()]);
    let gone = || !lab.published().contains(&key);
    expect_within(DEADLINE, "its key has left the bundle", || lab.server.log(), gone);
    lab.device.expect_log("this agent is banned");
    expect_within(DEADLINE, "its keys are gone", || lab.device.log(), || keys_in(&directory) == 0);
    lab.server.kill();
    let asked_again = || lab.device.log().matches("banned: nothing is served").count() >= 2;
    expect_within(2 * DEADLINE, "the server is missed", || lab.device.log(), asked_again);
    assert!(fetch_jwt(&lab.device, ALICE, "new").is_err());

    // The power went between the ban's note and the wipe: the next start finds a key.
    lab.device.kill_agent();
    std::fs::write(directory.join("jwt-authority-a.tpm"), "a key").expect("written");
    lab.device.start();
    expect_within(DEADLINE, "its keys are gone after a restart", || lab.device.log(), || keys_in(&directory) == 0);
}

#[test]
fn another_key_is_published_when_half_of_one_is_over_and_no_token_outlasts_the_longest_absence() {
    let mut lab = lab("jwt_svids = true\n max_offline = \"20s\"", DOWNSTREAM);
    lab.device.start();
    lab.device.expect_identity(ALICE);
    let first = lab.expect_key();
    let another = || lab.expect_key() != first;
    expect_within(2 * DEADLINE, "another when half of its life is over", || lab.device.log(), another);
    let second = lab.expect_key();
    assert!(lab.published().contains(&second), "and that is published before it signs");
    lab.server.kill();
    let token = lab.expect_own_token("new");
    let (claims, now) = (parts(&token).1, ironroot_agent::trusted_time::system_unix());
    assert_ne!(key_id(&token), first);
    assert!(claims["exp"].as_i64().expect("a number") <= now + 20, "no longer than max_offline: {claims}");
    let refused = || fetch_jwt(&lab.device, ALICE, "late").is_err_and(|error| error.contains("max_offline is over"));
    expect_within(DEADLINE, "nothing is signed after the longest absence", || lab.device.log(), refused);
}

#[test]
fn without_the_switch_no_key_is_published_and_nothing_signed() {
    let mut lab = lab("", DOWNSTREAM);
    lab.device.start();
    lab.device.expect_identity(ALICE);
    lab.expect_ca();
    assert_eq!(lab.published().len(), 1, "the server's own");
    lab.server.kill();
    lab.device.expect_log("sync failed");
    let refused = fetch_jwt(&lab.device, ALICE, "new").expect_err("nobody signs");
    assert!(refused.contains("could not fetch JWT-SVID: "), "{refused}");
    assert!(!jwt_directory(&lab.device).exists());
}

#[test]
fn an_entry_that_is_not_downstream_publishes_no_key_and_nothing_is_signed() {
    let mut lab = lab(TOKENS, Some(&[]));
    lab.device.start();
    lab.device.expect_identity(ALICE);
    lab.device.expect_log("the server publishes no key of");
    assert_eq!(lab.published().len(), 1, "the server's own");
    lab.server.kill();
    lab.device.expect_log("sync failed");
    assert!(fetch_jwt(&lab.device, ALICE, "new").is_err());
    assert!(!lab.device.data_directory().join("local-authority/issued.json").exists());
}

#[test]
fn a_clock_that_nobody_has_confirmed_signs_no_token() {
    let mut lab = lab(TOKENS, DOWNSTREAM);
    lab.device.start();
    lab.device.expect_identity(ALICE);
    lab.expect_key();
    lab.device.expect_sealed(1);
    lab.server.kill();
    assert!(lab.device.process().expect("it runs").terminate(), "{}", lab.device.log());
    lab.device.power_cycle();
    lab.device.start_at(Some("-2d"));
    lab.device.expect_log("own key for JWT-SVIDs is taken up again");
    let refused = || {
        fetch_jwt(&lab.device, ALICE, "new")
            .is_err_and(|error| error.contains("no server has confirmed this device's clock"))
    };
    expect_within(DEADLINE, "the reason is said", || lab.device.log(), refused);
}

#[test]
fn one_workload_that_asks_for_ever_new_audiences_is_slowed_down_and_others_are_not() {
    let mut lab = lab(TOKENS, DOWNSTREAM);
    goes_on(&mut lab);
    lab.expect_own_token("first");
    let refused = (0..200).find_map(|number| fetch_jwt(&lab.device, ALICE, &format!("new-{number}")).err());
    let refused = refused.expect("not without end");
    assert!(refused.contains("too many JWT-SVIDs of this entry"), "{refused}");
    assert!(fetch_jwt(&lab.device, BOB, "new").is_ok(), "{}", lab.device.log());
}
