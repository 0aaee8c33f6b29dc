//! A root that is made on paper, on a machine and a token of its own: the server below it never sees either. And the drills of the handbook.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::fs;
use std::path::Path;

use ironroot_api::certificate::Certificate;
use ironroot_lab::ceremony::Ceremony;
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, expect_within};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::softhsm::LABEL;
use ironroot_lab::workload_client;
use serde_json::Value;

const AWAITS: &str = "the root has to certify this CA, and it is not here";

/// A server below the roots of a file, its devices, and where the root is.
struct Site {
    ceremony: Ceremony,
    server: Server,
    devices: Vec<Device>,
}

/// The server's configuration, whose roots are in this file; with further blocks of plugins.
fn options(roots: &Path, more: &str) -> ServerOptions {
    let plugins = format!(
        "UpstreamAuthority \"pkcs11\" {{ plugin_data {{\n roots_path = \"{}\"\n }} }}\n{more}",
        roots.display()
    );
    ServerOptions { plugins, ca_ttl: "8760h", x509_svid_ttl: "30s", ..ServerOptions::default() }
}

impl Site {
    /// A root is made, the first CA is certified, and one device is served. Images have the root alone.
    fn begin(root_ttl: &str, ca_ttl: &str) -> Self {
        let ceremony = Ceremony::new();
        let root = ceremony.root("first", &["-ttl", root_ttl]);
        let roots = ceremony.paper("roots.pem");
        fs::copy(&root, &roots).unwrap();
        let mut server = Server::prepare(&options(&roots, ""));
        server.spawn();
        expect_within(DEADLINE, "the server asks its root", || server.log(), || server.log().contains(AWAITS));
        ceremony.certify(&server, "first", "ca-1", &["-ttl", ca_ttl]);
        server.restart();
        let maker = Manufacturer::new("Toy TPM Works").unwrap();
        let mut device = Device::manufacture(&maker);
        server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
        let own = format!("unix:uid:{}", nix::unistd::geteuid());
        server.create_entry(&device.agent_id(), "/app", &[&own], &[]);
        device.provision_with_bundle(&fs::read_to_string(&root).unwrap(), server.port(), &AgentOptions::default());
        device.start();
        let site = Self { ceremony, server, devices: vec![device] };
        site.expect("the device is served", |site| !site.issuer().is_empty());
        site
    }

    fn expect(&self, claim: &str, holds: impl Fn(&Self) -> bool) {
        let logs = || self.devices.iter().map(Device::log).chain([self.server.log()]).collect::<Vec<_>>().join("\n");
        expect_within(DEADLINE, claim, logs, || holds(self));
    }

    /// Who signed what the device's workload is served, hexadecimal; empty if it is served nothing.
    fn issuer(&self) -> String {
        self.served().map(|(issuer, _)| issuer).unwrap_or_default()
    }

    /// The same, and how many roots are in its bundle.
    fn served(&self) -> Option<(String, usize)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let served = runtime.block_on(workload_client::fetch(&self.devices[0].socket())).ok()?;
        let svid = served.svids.first()?;
        let leaf = Certificate::parse_concatenated(&svid.x509_svid).unwrap().remove(0);
        let roots = Certificate::parse_concatenated(&svid.bundle).unwrap().len();
        Some((hex(&leaf.authority_key_id().unwrap()), roots))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.server.cli(&[arguments, &["-output", "json"]].concat())).unwrap()
    }

    /// The next CA by hand: it waits for the root, is certified there and signs.
    fn replace_ca(&self, root: &str, name: &str) -> String {
        let waits = self.server.cli_output(&["localauthority", "x509", "prepare"]);
        assert!(String::from_utf8_lossy(&waits.stderr).contains(AWAITS), "{waits:?}");
        self.expect_told_that_it_waits();
        self.ceremony.certify(&self.server, root, name, &[]);
        self.expect("the CA is prepared", |site| !prepared(site).is_empty());
        let next = prepared(self);
        self.server.cli(&["localauthority", "x509", "activate", "-authorityID", &next]);
        next
    }

    /// With what to do, to people and programs.
    fn expect_told_that_it_waits(&self) {
        let text = self.server.cli(&["status"]);
        assert!(text.contains("; the next waits for the root"), "{text}");
        assert!(text.contains("Warning       : the next CA waits for the root"), "{text}");
        let status = self.json(&["status"]);
        let ca = status["authorities"].as_array().unwrap().iter().find(|it| it["purpose"] == "x509_ca").unwrap();
        assert!(ca["awaits_root"].as_str().unwrap().ends_with("ca-request.pem"), "{status}");
        assert!(status["warnings"].to_string().contains("ironroot-server ca ceremony sign"), "{status}");
    }

    fn bundle(&self) -> Vec<Certificate> {
        Certificate::parse_pem(&self.server.bundle_pem()).unwrap()
    }
}

fn prepared(site: &Site) -> String {
    site.json(&["localauthority", "x509", "show"])["prepared"]["authority_id"].as_str().unwrap_or_default().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn only(path: &Path) -> Certificate {
    let mut all = Certificate::parse_pem(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(all.len(), 1, "{path:?}");
    all.remove(0)
}

fn append(roots: &Path, root: &Path) {
    let both = fs::read_to_string(roots).unwrap() + &fs::read_to_string(root).unwrap();
    fs::write(roots, both).unwrap();
}

#[test]
fn a_root_made_on_paper_certifies_a_server_that_never_sees_its_token_and_the_next_root_is_published_ahead() {
    let site = Site::begin("175200h", "8760h");
    let Site { ceremony, server, .. } = &site;
    // The paper says what was done, for two people to sign.
    let paper = fs::read_to_string(ceremony.paper("first").join("root-transcript.txt")).unwrap();
    assert_eq!(paper.matches("Signature ____").count(), 2, "{paper}");
    let root = only(&ceremony.paper("first").join("root.pem"));
    let (transcript, serial) = (ceremony.transcript("first", "root"), root.serial_decimal());
    for (section, name, value) in [
        ("token", "label", LABEL),
        ("key", "cka_sensitive", "true"),
        ("key", "cka_never_extractable", "true"),
        ("key", "cka_extractable", "false"),
        ("root", "spiffe_id", "spiffe://lab.example"),
        ("root", "serial", serial.as_str()),
    ] {
        assert_eq!(transcript[section][name], value, "{section} {name}");
    }
    for (section, name) in [("ceremony", "program_sha_256"), ("token", "module_sha_256"), ("root", "sha_256")] {
        let hash = transcript[section][name].as_str().unwrap();
        assert!(hash.len() == 64 && paper.contains(hash), "{section} {name}: {hash}");
    }
    assert!(transcript["ceremony"]["command"].as_str().unwrap().contains("ca ceremony root -module"));
    let signed = ceremony.transcript("ca-1", "ca");
    assert_eq!(signed["ca"]["issuer"], signed["root"]["subject"]);
    // The CA is the server's, the root is in the bundle alone, and images with it are good.
    assert_eq!(site.bundle().iter().map(|one| one.der().to_vec()).collect::<Vec<_>>(), [root.der().to_vec()]);
    assert_eq!(site.issuer(), hex(&only(&ceremony.paper("ca-1").join("ca.pem")).subject_key_id().unwrap()));
    assert!(!server.log().contains("CRITICAL"), "to wait is no failure");
    // Succession: the next root joins the file years ahead; bundles and images have both.
    let next = ceremony.root("next", &[]);
    append(&ceremony.paper("roots.pem"), &next);
    site.expect("bundle show prints both", |site| site.bundle().len() == 2);
    site.expect("workloads have both", |site| site.served().is_some_and(|(_, roots)| roots == 2));
}

/// The handbook's: the token of the server is lost, and the root is safe.
#[test]
fn drill_a_lost_token_with_the_root_safe_costs_a_new_ca_and_no_image() {
    let mut site = Site::begin("175200h", "8760h");
    let before = site.issuer();
    let tokens = site.server.token().token_directory();
    site.server.kill();
    fs::remove_dir_all(&tokens).unwrap();
    fs::create_dir(&tokens).unwrap();
    site.server.token().initialize_token(LABEL);
    // The operator says that the keys are gone for good.
    let gone = "KeyManager \"memory\" { plugin_data {\n previous = true\n } }";
    site.server.reconfigure(&options(&site.ceremony.paper("roots.pem"), gone));
    site.server.spawn();
    site.expect("a new CA asks the root", |site| site.server.log().matches(AWAITS).count() > 1);
    site.ceremony.certify(&site.server, "first", "ca-2", &[]);
    site.server.restart();
    site.expect("the device goes on with the new CA", |site| ![String::new(), before.clone()].contains(&site.issuer()));
    assert_eq!(site.bundle().len(), 1, "the same root: no device and no image learns anything");
    // A device that is flashed with the old image is enrolled as ever.
    site.devices[0].kill_agent();
    site.devices[0].start();
    site.expect("it comes back", |site| !site.issuer().is_empty());
}

/// The handbook's: the root's key is in other hands.
#[test]
fn drill_a_compromised_root_is_replaced_by_the_next_one_and_cannot_come_back_by_its_file() {
    let site = Site::begin("175200h", "8760h");
    let roots = site.ceremony.paper("roots.pem");
    let (old, next) = (only(&roots), site.ceremony.root("next", &[]));
    append(&roots, &next);
    site.expect("everybody knows the next root", |site| site.served().is_some_and(|(_, roots)| roots == 2));
    let new = site.replace_ca("next", "ca-2");
    let id = hex(&old.subject_key_id().unwrap());
    site.server.cli(&["upstreamauthority", "taint", "-subjectKeyID", &id]);
    site.expect("all that led to it is replaced", |site| site.issuer() == new);
    let refused = site.server.cli_output(&["upstreamauthority", "revoke", "-subjectKeyID", &id]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("roots_path still has that root"), "{refused:?}");
    fs::copy(&next, &roots).unwrap();
    site.server.cli(&["upstreamauthority", "revoke", "-subjectKeyID", &id]);
    site.expect("nobody has it", |site| site.served() == Some((new.clone(), 1)));
    assert_eq!(site.bundle().len(), 1);
}

/// The handbook's: a root near its end.
#[test]
fn drill_a_root_near_its_end_gives_way_to_the_next_one_before_it_ends() {
    let site = Site::begin("150s", "90s");
    let first = only(&site.ceremony.paper("first").join("root.pem"));
    let ca = only(&site.ceremony.paper("ca-1").join("ca.pem"));
    assert!(ca.not_after_unix() <= first.not_after_unix());
    let next = site.ceremony.root("next", &[]);
    append(&site.ceremony.paper("roots.pem"), &next);
    // At half its CA's life the server asks by itself, and says by when it must have been answered.
    site.expect("it says when the root is needed", |site| {
        site.server.log().contains("the root is needed") && site.server.log().contains("within 0 days, until ")
    });
    site.ceremony.certify(&site.server, "next", "ca-2", &[]);
    let new = hex(&only(&site.ceremony.paper("ca-2").join("ca.pem")).subject_key_id().unwrap());
    site.expect("the next root's CA signs before the first one ends", |site| site.issuer() == new);
    let late = || {
        let request = site.ceremony.paper("ca-2-request.pem");
        let (root, request) = (site.ceremony.paper("first/root.pem"), request.display().to_string());
        let root = root.display().to_string();
        let out = site.ceremony.paper("late").display().to_string();
        let flags = ["-root", &root, "-keyLabel", "first", "-request", &request, "-out", &out];
        String::from_utf8_lossy(&site.ceremony.output("sign", &flags).stderr).into_owned()
    };
    let ends = std::time::Duration::from_secs(200);
    expect_within(ends, "a root that has ended signs nothing", String::new, || {
        let said = late();
        let _ = fs::remove_dir_all(site.ceremony.paper("late"));
        said.contains("the root ended at ")
    });
    assert_eq!(site.issuer(), new, "and nobody noticed");
}

#[test]
fn what_a_ceremony_refuses_it_names_and_signs_nothing() {
    let site = Site::begin("175200h", "8760h");
    let Site { ceremony, server, .. } = &site;
    let text = |path: &Path| path.display().to_string();
    let (root, roots) = (text(&ceremony.paper("first/root.pem")), ceremony.paper("roots.pem"));
    let out = text(&ceremony.paper("refused"));
    let request = text(&ceremony.paper("ca-1-request.pem"));
    let sign = |ceremony: &Ceremony, root: &str, label: &str, request: &str| {
        let flags = ["-root", root, "-keyLabel", label, "-request", request, "-out", &out];
        let said = ceremony.refused("sign", &flags);
        assert!(!Path::new(&out).join("ca.pem").exists(), "nothing is written: {said}");
        said
    };
    // Another token, another key, no key.
    let other = Ceremony::new();
    assert!(sign(&other, &root, "first", &request).contains("the token has no key with CKA_LABEL \"first\""));
    other.root("first", &[]);
    assert!(sign(&other, &root, "first", &request).contains("wrong token: its key with"));
    // What is no root, and another trust domain's.
    let ca = text(&ceremony.paper("ca-1/ca.pem"));
    assert!(sign(ceremony, &ca, "first", &request).contains("it is below a root, and no root itself"));
    let foreign = text(&ceremony.paper("foreign"));
    let made = ceremony.output("root", &["-trustDomain", "other.example", "-keyLabel", "foreign", "-out", &foreign]);
    assert!(made.status.success(), "{made:?}");
    let said = sign(ceremony, &format!("{foreign}/root.pem"), "foreign", &request);
    assert!(
        said.contains("the request is of spiffe://lab.example, and the root is that of spiffe://other.example"),
        "{said}"
    );
    let noise = ceremony.paper("noise.pem");
    fs::write(&noise, "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n").unwrap();
    assert!(sign(ceremony, &root, "first", &text(&noise)).contains("holds no request for a certificate"));
    // A root is not made twice, and nothing is written over.
    let again = text(&ceremony.paper("again"));
    let said = ceremony.refused("root", &["-trustDomain", "lab.example", "-keyLabel", "first", "-out", &again]);
    assert!(said.contains("has a key with CKA_LABEL \"first\" already"), "{said}");
    let first = text(&ceremony.paper("first"));
    let said = ceremony.refused("root", &["-trustDomain", "lab.example", "-keyLabel", "third", "-out", &first]);
    assert!(said.contains("is not written over"), "{said}");
    // At the server: nothing waits; then what is delivered is for another key, or of a root that is not in the file.
    let take = |path: &str| {
        let output = server.ceremony_output(&["take", "-certificate", path]);
        assert!(!output.status.success(), "{path} is taken");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(take(&ca).contains("no request waits for the root"));
    server.cli_output(&["localauthority", "x509", "prepare"]);
    assert!(take(&ca).contains("does not belong to the key that waits"));
    ceremony.root("unknown", &[]);
    let request = ceremony.carry_request(server, "second-request.pem");
    let by_unknown = ceremony.sign("unknown", &request, "by-unknown", &[]);
    assert!(take(&text(&by_unknown)).contains("none of the roots in"), "{}", take(&text(&by_unknown)));
    // And a file of roots with something else in it is no configuration.
    fs::write(&roots, fs::read_to_string(ceremony.paper("ca-1/ca.pem")).unwrap()).unwrap();
    let validated = server.validate();
    assert!(validated.contains("holds a certificate that cannot be a root here"), "{validated}");
}
