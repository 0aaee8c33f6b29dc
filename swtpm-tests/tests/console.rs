//! The fleet page: who is let in, what it shows, what can be done on it; and in a real browser.

use std::path::{Path, PathBuf};
use std::process::Command;

use ironroot_lab::deployment::{
    Admission, AgentOptions, Device, Server, ServerOptions, TRUST_DOMAIN, binary, expect_within, free_port,
};
use ironroot_lab::fleet_page::{Answer, FleetPage, ask, parts};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::metrics::{scrape, switch_on};
use ironroot_lab::server_client::{ServerClient, SoftwareDevice};

const ALICE: u32 = 60_001;

fn hash(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// A browser that has opened the console's link: its address and the line with its cookie.
struct Browser {
    address: String,
    cookie: String,
    /// The path that the cookie is for.
    home: String,
}

impl Browser {
    fn opens(link: &str) -> Self {
        let (address, path) = parts(link);
        let answer = ask(address, &format!("GET {path}"), &[&format!("Host: {address}")], "");
        assert_eq!(answer.status, 200, "{answer:?}");
        let cookie = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
        assert!(cookie.contains("httponly") && cookie.contains("samesite=strict"), "{cookie}");
        let pair = cookie.split(';').next().expect("a pair");
        let (_, home) = cookie.split_once("path=").expect("a path");
        assert!(answer.body.contains(&format!("url={home}")), "{}", answer.body);
        let home = home.trim_end_matches('/').to_owned();
        Self { address: address.to_owned(), cookie: format!("Cookie: {pair}"), home }
    }

    /// A page, at its path within the console.
    fn get(&self, path: &str) -> Answer {
        self.get_at(&format!("{}{path}", self.home))
    }

    fn get_at(&self, path: &str) -> Answer {
        ask(&self.address, &format!("GET {path}"), &[&format!("Host: {}", self.address), &self.cookie], "")
    }

    /// Sends a form as a browser does for a page of `origin`.
    fn send(&self, path: &str, origin: &str, form: &str) -> Answer {
        let head = [
            &*format!("Host: {}", self.address),
            &self.cookie,
            &format!("Origin: {origin}"),
            "Content-Type: application/x-www-form-urlencoded",
        ];
        ask(&self.address, &format!("POST {}{path}", self.home), &head, form)
    }

    fn own(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What forms of the device's page carry.
    fn form(&self, device: &str) -> String {
        let page = self.get(&format!("/devices/{device}")).body;
        let (_, rest) = page.split_once("name=\"form\" value=\"").unwrap_or_else(|| panic!("no form: {page}"));
        rest.split('"').next().expect("a value").to_owned()
    }
}

fn fleet() -> Server {
    let server = Server::start(&ServerOptions::default());
    let (a, b) = (hash('a'), hash('b'));
    server.import_devices(&format!("ek_sha256,serial,label:site\n{a},SN-1,berlin\n{b},SN-2,rome\n"));
    server
}

#[test]
fn nobody_is_let_in_without_a_link_of_his_own_and_no_name_but_this_machines_reaches_the_page() {
    let server = fleet();
    let mut page = FleetPage::start(&server, &[]);
    let link = page.link();
    let (address, path) = parts(&link);
    let own = format!("Host: {address}");
    for place in ["/", "/entries", "/authorities", "/live", "/devices/x", "/nothing"] {
        let answer = ask(address, &format!("GET {place}"), &[&own], "");
        assert!(answer.status == 401 && answer.body.contains("open the link"), "{place}: {answer:?}");
        assert!(!answer.body.contains("SN-1"), "{place}");
    }
    assert_eq!(ask(address, "GET /open/guessed", &[&own], "").status, 410);
    assert_eq!(ask(address, &format!("GET {path}"), &["Host: evil.example"], "").status, 421);
    let browser = Browser::opens(&link);
    let fleet = browser.get("/");
    assert!(fleet.status == 200 && fleet.body.contains("SN-1"), "{fleet:?}");
    for said in ["content-security-policy: default-src 'none'", "cache-control: no-store", "x-frame-options: deny"] {
        assert!(fleet.head.contains(said), "{said}: {}", fleet.head);
    }
    // A link that somebody else saw is worth nothing any more; nor is a cookie on another name of this machine's.
    let stolen = ask(address, &format!("GET {path}"), &[&own], "");
    assert!(stolen.status == 410 && stolen.body.contains("press Enter"), "{stolen:?}");
    assert_eq!(ask(address, "GET /", &["Host: evil.example", &browser.cookie], "").status, 421);
    // The cookie is for a path that a page of another port does not know; elsewhere there is nothing.
    assert!(
        browser.home.len() == 65 && browser.home[1..].bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{}",
        browser.home
    );
    for place in ["/", "/entries", "/live"] {
        assert_eq!(browser.get_at(place).status, 404, "{place}");
    }
    assert!(!fleet.body.contains(&browser.home[1..]), "no page shows it");
    page.enter();
    let second = Browser::opens(&page.link());
    assert_eq!((second.get("/").status, browser.get("/").status), (200, 200));
}

#[test]
fn a_console_that_only_shows_changes_nothing_and_one_that_may_bans_by_name_from_its_own_page_alone() {
    let server = fleet();
    let state = |serial: &str| -> String {
        let shown = server.cli(&["device", "show", serial, "-output", "json"]);
        serde_json::from_str::<serde_json::Value>(&shown).expect("JSON")["state"].as_str().expect("a state").to_owned()
    };
    let ban = format!("/devices/{}/ban", hash('a'));
    let mut shows = FleetPage::start(&server, &[]);
    let browser = Browser::opens(&shows.link());
    assert!(!browser.get(&format!("/devices/{}", hash('a'))).body.contains("<form class=\"confirm\""));
    let refused = browser.send(&ban, &browser.own(), "form=x&name=SN-1");
    assert!(refused.status == 403 && refused.body.contains("-write"), "{refused:?}");
    let mut may = FleetPage::start(&server, &["-write"]);
    let browser = Browser::opens(&may.link());
    let form = browser.form(&hash('a'));
    for (origin, form, name, status) in [
        ("http://evil.example", &*form, "SN-1", 403),
        ("null", &form, "SN-1", 403),
        (&browser.own(), "", "SN-1", 403),
        (&browser.own(), "0123", "SN-1", 403),
        (&browser.own(), &form, "SN-2", 422),
        (&browser.own(), &form, "", 422),
    ] {
        let answer = browser.send(&ban, origin, &format!("form={form}&name={name}"));
        assert_eq!(answer.status, status, "{origin} {form} {name}: {answer:?}");
        assert_eq!(state("SN-1"), "enrolled");
    }
    assert_eq!(browser.get(&ban).status, 405, "nothing is changed by a link");
    let done = browser.send(&ban, &browser.own(), &format!("form={form}&name=SN-1"));
    assert_eq!(done.status, 303, "{done:?}");
    assert_eq!((state("SN-1").as_str(), state("SN-2").as_str()), ("banned", "enrolled"));
    assert!(browser.get(&format!("/devices/{}?done=ban", hash('a'))).body.contains("Banned: it may not attest"));
    assert!(browser.send(&ban, &browser.own(), &"x".repeat(5_000)).status >= 400, "a form has a bound");
}

#[test]
fn a_server_that_is_not_there_is_told_before_there_is_a_page_and_one_that_goes_away_on_the_page() {
    let mut server = fleet();
    let mut page = FleetPage::start(&server, &[]);
    let browser = Browser::opens(&page.link());
    server.process().expect("runs").terminate();
    let gone = browser.get("/");
    assert!(gone.status == 502 && gone.body.contains("the server does not answer"), "{gone:?}");
    let none = Command::new(binary("ironroot-server")).args(["console", "-socketPath", "/nowhere/api.sock"]).output();
    let none = none.expect("it starts");
    assert!(!none.status.success() && String::from_utf8_lossy(&none.stderr).contains("/nowhere/api.sock"), "{none:?}");
    server.restart();
    assert_eq!(browser.get("/").status, 200, "it is asked anew each time");
}

/// What a device, a label, an entry may be called at worst.
const SCRIPT: &str = "<script>alert(1)</script>\"'&";
const PICTURE: &str = "<img src=x onerror=alert(1)>";
/// It makes a terminal show what follows from right to left.
const BACKWARDS: char = '\u{202e}';

/// A server with a device, an entry and a group of these names; the longest SPIFFE ID that there may be, and the metrics' port.
fn badly_named() -> (Server, String, u16) {
    let (mut server, port) = (Server::prepare(&ServerOptions::default()), free_port());
    switch_on(&server.config_path(), port);
    server.restart();
    let labels = serde_json::json!({ "site": SCRIPT, "note": format!("a{BACKWARDS}b"), "long": "x".repeat(255) });
    let device = serde_json::json!({ "ek_sha256": hash('a'), "serial": PICTURE, "labels": labels });
    server.import_from_pipe(serde_json::json!([device]).to_string().as_bytes());
    let before = format!("spiffe://{TRUST_DOMAIN}").len();
    let path = format!("/{}", "x".repeat(2048 - before - 1));
    let parent = format!("spiffe://{TRUST_DOMAIN}/gateway");
    server.cli(&["entry", "create", "-node", "-spiffeID", &parent, "-selector", &format!("tpm2:label:site:{SCRIPT}")]);
    server.create_entry(&parent, &path, &[&format!("docker:label:a:{PICTURE}")], &["-hint", SCRIPT]);
    (server, format!("spiffe://{TRUST_DOMAIN}{path}"), port)
}

#[test]
fn what_others_have_named_is_text_on_every_page_in_every_table_and_in_the_log_and_in_no_metric() {
    let (server, id, port) = badly_named();
    assert_eq!(id.len(), 2048);
    let mut page = FleetPage::start(&server, &["-write"]);
    let browser = Browser::opens(&page.link());
    let device = format!("/devices/{}", hash('a'));
    let search = "/?text=%3Cscript%3Ealert(1)%3C%2Fscript%3E&label=site%3D%3Cscript%3E&state=enrolled";
    for (path, shows) in [
        ("/", "&lt;img src=x onerror=alert(1)&gt;"),
        (search, "&lt;script&gt;alert(1)"),
        (&device, "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("/entries", &id),
        ("/authorities", "does its work"),
    ] {
        let answer = browser.get(path);
        assert!(answer.status == 200 && answer.body.contains(shows), "{path}: {}", answer.body);
        for raw in ["<script>alert", "<img", "\u{1b}"] {
            assert!(!answer.body.contains(raw), "{path} has {raw:?}: {}", answer.body);
        }
    }
    for command in [&["device", "list"][..], &["device", "show", &hash('a')], &["entry", "show"]] {
        let shown = server.cli(command);
        assert!(shown.contains("<script>") && !shown.contains(BACKWARDS), "{command:?}: {shown}");
        let json = server.cli(&[command, &["-output", "json"]].concat());
        serde_json::from_str::<serde_json::Value>(&json).expect("JSON");
        let table = at_a_terminal(&server, command);
        let longest = table.lines().map(|line| line.chars().count()).max();
        assert!(command[1] == "show" && command[0] == "device" || longest < Some(700), "{command:?}: {table}");
        assert!(!table.contains(BACKWARDS), "{command:?}: {table}");
    }
    let none = server.cli_output(&["entry", "show", "-entryID", "x\u{1b}[31m\nforged: all is well"]);
    assert!(!none.status.success() && !none.stderr.contains(&0x1b), "{none:?}");
    let metrics = scrape(port).expect("a page");
    assert!(["alert(1)", "xxxxxxxx"].iter().all(|word| !metrics.contains(word)), "{metrics}");
    let log = server.log();
    assert!(log.contains(&id[..200]) && !log.contains('\u{1b}') && !log.contains("\nforged"), "{log}");
}

/// What a command prints where a person reads it.
fn at_a_terminal(server: &Server, command: &[&str]) -> String {
    let words: Vec<String> = command.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("'{}' {}", binary("ironroot-server").display(), words.join(" "));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("SPIRE_SERVER_PRIVATE_SOCKET", server.socket());
    let output = script.output().expect("script (package bsdutils) starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {said}");
    said
}

/// The interpreter that `scripts/setup --tests` has prepared.
fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python");
    assert!(path.exists(), "{} is missing: run scripts/setup --tests", path.display());
    path
}

/// What the browser walks through, with what it asks of us in between, is in `tests/console_browser.py`. With `IRONROOT_PICTURES` it
/// leaves pictures in that directory.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_browser_a_device_is_approved_and_banned_and_the_page_follows_what_others_do() {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let server = Server::start(&ServerOptions { admission: Admission::Approval, ..ServerOptions::default() });
    let stranger = SoftwareDevice::new();
    let waits = stranger.attest(&ServerClient::new(&server).await).await.map(drop).expect_err("nobody vouches for it");
    assert!(waits.message().contains("waits for approval"), "{waits}");
    let mut device = Device::manufacture(&maker);
    server.import_devices(&format!("ek_sha256,serial,label:site\n{},SN-0001,berlin\n", device.ek_sha256()));
    let parent = server.create_node_alias("/gateway", "site:berlin");
    server.create_entry(&parent, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    server.create_entry(&parent, "/nobody", &["unix:uid:4000000"], &[]);
    device.provision(&server, &AgentOptions::default());
    device.start();
    device.expect_identity(ALICE);
    let fleet: String =
        (0..10_000).map(|n| format!("{n:064x},GW-{n:05},{}\n", ["berlin", "rome", "oslo"][n % 3])).collect();
    server.import_from_pipe(format!("ek_sha256,serial,label:site\n{fleet}").as_bytes());
    let mut page = FleetPage::start(&server, &["-write"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console_browser.py");
    let mut command = Command::new(python());
    command.arg(script).arg(page.link()).arg(binary("ironroot-server")).arg(server.socket()).arg(device.ek_sha256());
    command.arg(stranger.ek_sha256());
    let output = command.output().expect("python starts");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}\n{}\n{}", page.said(), server.log());
    let banned = || server.cli(&["device", "show", "SN-0001"]).contains("banned");
    expect_within(ironroot_lab::deployment::DEADLINE, "the ban", || said.clone(), banned);
}
