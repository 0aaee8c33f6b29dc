//! Devices whose chips are not like swtpm fresh from the factory, from the factory to the workload: real binaries.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use ironroot_lab::deployment::{AgentOptions, Device, Server, ServerOptions, TRUST_DOMAIN, binary};
use ironroot_lab::manufacturer::{EkKind, Manufacturer, ek_sha256_of};
use ironroot_lab::swtpm::Swtpm;
use tss_esapi::handles::AuthHandle;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::Auth;

const ALICE: u32 = 60_001;

fn chip() -> Swtpm {
    Swtpm::start().expect("swtpm (package swtpm) starts")
}

fn hex(bytes: [u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name(chip: &Swtpm, kind: EkKind) -> String {
    hex(ek_sha256_of(chip, kind).expect("an endorsement key"))
}

/// Gives a hierarchy a password.
fn own(chip: &Swtpm, hierarchy: AuthHandle, password: &str) {
    let mut esys = chip.esys().expect("ESYS");
    let auth = Auth::try_from(password.as_bytes()).expect("a password");
    esys.execute_with_session(Some(AuthSession::Password), |esys| esys.hierarchy_change_auth(hierarchy, auth))
        .expect("owned");
}

/// Enrols the device and gives Alice an entry on it.
fn enrol(server: &Server, device: &Device) {
    server.import_devices(&format!("ek_sha256,label:site\n{},berlin\n", device.ek_sha256()));
    entry(server);
}

fn entry(server: &Server) {
    let parent = server.create_node_alias("/gateway", "site:berlin");
    server.create_entry(&parent, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
}

/// Alice has her identity, online, and offline after a power cycle.
fn lives(mut server: Server, device: &mut Device) {
    device.start();
    assert_eq!(device.expect_identity(ALICE).ids, [format!("spiffe://{TRUST_DOMAIN}/alice")]);
    device.expect_sealed(1);
    server.kill();
    device.power_cycle();
    device.start();
    device.expect_identity(ALICE);
}

fn show(chip: &Swtpm, more: &[&str]) -> Output {
    let mut command = Command::new(binary("ironroot-agent"));
    command.args(["tpm", "show", "-tpm", &chip.tcti()]).args(more);
    command.output().expect("ironroot-agent starts")
}

fn shown(chip: &Swtpm, more: &[&str]) -> String {
    let output = show(chip, more);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn what_a_factory_reads_from_a_chip_enrols_the_device() {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    for kind in [EkKind::P256, EkKind::Rsa2048] {
        let chip = chip();
        maker.certify_as(&chip, kind, &Default::default()).expect("certified");
        let server = Server::start(&ServerOptions::default());
        let manifest = shown(&chip, &["-output", "csv", "-serial", "SN-1", "-label", "site=berlin"]);
        let said = server.import_from_pipe(manifest.as_bytes());
        assert!(said.contains("1 created"), "{said}");
        entry(&server);
        let name = name(&chip, kind);
        let mut device = Device::with_chip(chip, name);
        device.provision(&server, &AgentOptions::default());
        let config = device.config_path().display().to_string();
        assert_eq!(
            shown(device.tpm(), &["-config", &config, "-output", "csv"]),
            format!("ek_sha256\n{}\n", device.ek_sha256())
        );
        device.start();
        device.expect_identity(ALICE);
        assert!(server.cli(&["agent", "show", "-spiffeID", &device.agent_id()]).contains("tpm2:serial:SN-1"));
    }
}

#[test]
fn tpm_show_tells_key_certificate_maker_and_registers_and_leaves_nothing_behind() {
    let (chip, maker) = (chip(), Manufacturer::new("Toy TPM Works").expect("maker"));
    let bare: serde_json::Value = serde_json::from_str(&shown(&chip, &["-output", "json"])).expect("JSON");
    assert_eq!((&bare["ek_kind"], &bare["ek_certificates"]), (&"p256".into(), &serde_json::json!([])));
    maker.certify(&chip).expect("certified");
    maker.certify_rsa(&chip).expect("certified");
    let json: serde_json::Value = serde_json::from_str(&shown(&chip, &["-output", "json"])).expect("JSON");
    assert_eq!(json["ek_sha256"], name(&chip, EkKind::P256));
    let fits: Vec<_> =
        json["ek_certificates"].as_array().expect("a list").iter().map(|c| (&c["kind"], &c["fits"])).collect();
    assert_eq!(fits, [(&"p256".into(), &true.into()), (&"rsa2048".into(), &false.into())]);
    assert!(json["ek_certificates"][0]["issuer"].as_str().expect("text").contains("Toy TPM Works issuing"));
    assert_eq!(json["pcrs"]["sha256"]["7"], "0".repeat(64));
    let text = shown(&chip, &[]);
    for line in ["Maker             : IBM", "EK kind           : p256", "Persistent keys   : none used", "for this key"]
    {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    assert_eq!(
        shown(&chip, &["-ek", "rsa2048", "-output", "csv"]),
        format!("ek_sha256\n{}\n", name(&chip, EkKind::Rsa2048))
    );
    assert_eq!(chip.left_loaded().expect("the chip answers"), [0u32; 0]);
}

#[test]
fn tpm_show_says_why_there_is_nothing_to_show() {
    let mut chip = chip();
    chip.stop().expect("off");
    let output = show(&chip, &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("no TPM answers at swtpm:host=127.0.0.1"), "{stderr}");
    assert!(stderr.contains("-tpm names another chip"), "{stderr}");
}

#[test]
fn a_device_keeps_its_name_when_somebody_writes_another_certificate_into_its_chip() {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let chip = chip();
    let known = name(&chip, EkKind::P256);
    let server = Server::start(&ServerOptions::default());
    let mut device = Device::with_chip(chip, known);
    enrol(&server, &device);
    device.provision(&server, &AgentOptions::default());
    device.start();
    device.expect_identity(ALICE);
    device.expect_sealed(1);
    device.kill_agent();
    maker.certify_rsa(device.tpm()).expect("certified");
    // Without its cache it has to attest again.
    std::fs::remove_file(device.data_directory().join("identities.sealed")).expect("removed");
    device.start();
    device.expect_identity(ALICE);
    assert!(!device.log().contains("is not enrolled"), "{}", device.log());
}

#[test]
fn the_password_of_a_hierarchy_may_be_a_credential_of_the_service() {
    let chip = chip();
    let known = name(&chip, EkKind::P256);
    own(&chip, AuthHandle::Endorsement, "endorsement's");
    let device = Device::with_chip(chip, known);
    let tpm_lines = "endorsement_hierarchy_password_credential = \"ek-password\"\n".to_owned();
    let no_bundle = "";
    device.provision_with_bundle(no_bundle, 8081, &AgentOptions { tpm_lines, ..AgentOptions::default() });
    // As systemd hands it over with LoadCredential=ek-password:….
    let credentials = tempfile::tempdir().expect("directory");
    let file = credentials.path().join("ek-password");
    std::fs::write(&file, "endorsement's\n").expect("written");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o440)).expect("mode");
    let show = |directory: Option<&std::path::Path>| {
        let mut command = Command::new(binary("ironroot-agent"));
        command.args(["tpm", "show", "-output", "csv", "-config"]).arg(device.config_path());
        command.env_remove("CREDENTIALS_DIRECTORY").envs(directory.map(|path| ("CREDENTIALS_DIRECTORY", path)));
        let output = command.output().expect("ironroot-agent starts");
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(show(Some(credentials.path())), (format!("ek_sha256\n{}\n", device.ek_sha256()), String::new()));
    let (_, unnamed) = show(None);
    assert!(unnamed.contains("\"ek-password\"") && unnamed.contains("LoadCredential="), "{unnamed}");
    let empty = tempfile::tempdir().expect("directory");
    let (_, missing) = show(Some(empty.path()));
    assert!(missing.contains(&empty.path().join("ek-password").display().to_string()), "{missing}");
}

#[test]
fn a_device_with_an_owned_chip_lives_with_passwords_from_files() {
    let chip = chip();
    let known = name(&chip, EkKind::P256);
    own(&chip, AuthHandle::Owner, "owner's");
    own(&chip, AuthHandle::Endorsement, "endorsement's");
    let server = Server::start(&ServerOptions::default());
    let mut device = Device::with_chip(chip, known);
    enrol(&server, &device);
    device.provision(&server, &AgentOptions::default());
    device.start();
    device.expect_log("the TPM's endorsement hierarchy has another password");
    device.kill_agent();
    let directory = tempfile::tempdir().expect("directory");
    let file = |name: &str, password: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("{password}\n")).expect("written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("mode");
        path.display().to_string()
    };
    let (owner, endorsement) = (file("owner", "owner's"), file("endorsement", "endorsement's"));
    let tpm_lines = format!(
        "owner_hierarchy_password_file = \"{owner}\"\nendorsement_hierarchy_password_file = \"{endorsement}\"\n"
    );
    device.provision(&server, &AgentOptions { tpm_lines, ..AgentOptions::default() });
    lives(server, &mut device);
}

/// TPM2_Clear, whose counters begin anew: the agent's own connection of before is no proof that there are two.
//= TPM-17
#[test]
fn a_chip_that_is_cleared_under_its_agent_is_refused_and_not_taken_for_a_copy() {
    let server =
        Server::start(&ServerOptions { agent_ttl: "20s", require_resident_key: false, ..ServerOptions::default() });
    let mut chip = chip();
    for _ in 0..3 {
        chip.power_cycle().expect("its reset counter goes on");
    }
    let ek_sha256 = name(&chip, EkKind::P256);
    let mut device = Device::with_chip(chip, ek_sha256);
    device.provision(&server, &AgentOptions { key_manager: "memory", ..AgentOptions::default() });
    enrol(&server, &device);
    device.start();
    device.expect_identity(ALICE);
    device.tpm().stop().expect("off");
    clear(device.tpm().state());
    device.tpm().start_again().expect("on");
    device.expect_log("reset counter went back");
    // It goes on with its certificate, and is told what is new.
    server.create_entry(&device.agent_id(), "/bob", &["unix:uid:60002"], &[]);
    device.expect_identity(60_002);
    let shown = server.cli(&["device", "list"]);
    assert!(!shown.contains("banned") && !server.log().contains("a chip runs twice"), "{shown}\n{}", server.log());
}

/// Clears the chip with this state, which is off.
fn clear(state: &Path) {
    let mut chip = Swtpm::with_copy_of(state).expect("starts");
    let mut esys = chip.esys().expect("ESYS");
    esys.execute_with_session(Some(AuthSession::Password), |esys| esys.clear(AuthHandle::Lockout)).expect("cleared");
    drop(esys);
    chip.stop().expect("off");
    for file in fs::read_dir(chip.state()).expect("its state") {
        let file = file.expect("an entry").path();
        if file.extension().is_some_and(|extension| extension == "permall") {
            fs::copy(&file, state.join(file.file_name().expect("a name"))).expect("copied");
        }
    }
}

#[test]
fn a_device_whose_chip_has_sha384_alone_lives() {
    let mut chip = chip();
    chip.allocate_pcr_banks(&[0x000c]).expect("allocated");
    let known = name(&chip, EkKind::P256);
    let server = Server::start(&ServerOptions { pcr_banks: "[\"sha256\", \"sha384\"]", ..ServerOptions::default() });
    let mut device = Device::with_chip(chip, known);
    enrol(&server, &device);
    device.provision(&server, &AgentOptions::default());
    lives(server, &mut device);
}

#[test]
fn a_device_whose_chip_has_sha1_alone_is_told_so_and_what_to_do() {
    let mut chip = chip();
    chip.allocate_pcr_banks(&[0x0004]).expect("allocated");
    let known = name(&chip, EkKind::P256);
    let server = Server::start(&ServerOptions::default());
    let mut device = Device::with_chip(chip, known);
    enrol(&server, &device);
    device.provision(&server, &AgentOptions::default());
    device.start();
    device.expect_log("the device's TPM has the PCR banks sha1 active, this server accepts sha256");
}
