//! `ironroot-server hsm probe`: says what a token can do and what to write, leaves nothing there, and risks no PIN.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use cryptoki::context::Pkcs11;
use cryptoki::object::Attribute;
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use ironroot_hsm::{TRIAL_LABEL, Token};
use ironroot_lab::deployment::binary;
use ironroot_lab::quirk::Quirks;
use ironroot_lab::softhsm::{LABEL, PIN, SoftHsm};
use serde_json::Value;

fn probe(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("ironroot-server"));
    command.args(["hsm", "probe"]).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(module: &Path, arguments: &[&str]) -> Value {
    let module = module.display().to_string();
    let output = probe(&[&["-module", &module, "-output", "json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

fn met(found: &Value) -> Vec<Option<bool>> {
    found["needs"].as_array().unwrap().iter().map(|need| need["met"].as_bool()).collect()
}

/// Every object on the token, seen by a second user of the module in this process, which has it initialised.
fn objects() -> usize {
    let pkcs11 = Pkcs11::new(SoftHsm::module_path()).unwrap();
    let slots = pkcs11.get_slots_with_initialized_token().unwrap();
    let slot = slots.into_iter().find(|slot| pkcs11.get_token_info(*slot).unwrap().label() == LABEL).unwrap();
    let session = pkcs11.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&AuthPin::from(PIN))).unwrap();
    session.find_objects(&[Attribute::Token(true)]).unwrap().len()
}

#[test]
fn without_a_pin_a_module_is_asked_and_nobody_logs_in() {
    Quirks::run_in_child("without_a_pin_a_module_is_asked_and_nobody_logs_in", |hsm, quirks| {
        let found = json(quirks.module_path(), &[]);
        assert_eq!(quirks.count("C_Login"), 0);
        let slots = found["slots"].as_array().unwrap();
        let token = slots.iter().map(|slot| &slot["token"]).find(|token| token["label"] == LABEL).unwrap();
        assert_eq!(token["login_required"], true);
        assert_eq!(token["user_pin"], "set, no wrong try counted");
        assert_eq!(met(&found)[..4], [None; 4], "a trial would tell: {found}");
        assert_eq!(found["tried"], false);
        let said = text(&probe(&["-module", &SoftHsm::module_path().display().to_string()]).stdout);
        for words in ["Library          : ", "CKM_ECDSA (", "by the token's word; give a PIN to try", "module_path = "]
        {
            assert!(said.contains(words), "{words:?} is not in: {said}");
        }
        // A second token: which one is meant is asked for.
        hsm.initialize_token("another");
        let said = text(&probe(&["-module", &SoftHsm::module_path().display().to_string()]).stdout);
        assert!(said.contains("say with -token which one is meant"), "{said}");
        let pin = hsm.pin_file().display().to_string();
        let refused = probe(&["-module", &SoftHsm::module_path().display().to_string(), "-pinFile", &pin]);
        assert!(text(&refused.stderr).contains("a PIN belongs to one of them: say which with -token"));
    });
}

#[test]
fn with_a_pin_keys_of_each_kind_live_once_and_nothing_of_them_stays_nor_of_a_probe_that_was_cut_off() {
    let name = "with_a_pin_keys_of_each_kind_live_once_and_nothing_of_them_stays_nor_of_a_probe_that_was_cut_off";
    SoftHsm::run_in_child(name, |hsm| {
        let pin = hsm.pin_file().display().to_string();
        {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let token = Token::open(hsm.token_config(1)).unwrap();
            let id = ironroot_hsm::KeyId::new(b"cut off").unwrap();
            runtime.block_on(token.generate_p256(&id, TRIAL_LABEL)).unwrap();
            // One of somebody else's is nobody else's business.
            let id = ironroot_hsm::KeyId::new(b"the CA's").unwrap();
            runtime.block_on(token.generate_p256(&id, "ca")).unwrap();
        }
        assert!(ironroot_hsm::session_threads_ended(std::time::Duration::from_secs(10)));
        let module = SoftHsm::module_path().display().to_string();
        let output = probe(&["-module", &module, "-output", "json", "-token", LABEL, "-pinFile", &pin]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        // A module that hangs is known by the last line.
        let said = text(&output.stderr);
        let steps = [
            &*format!("asking {module}"),
            &*format!("logging in to pkcs11:token={LABEL}"),
            "trying a key of kind ec-p256",
            "trying a key of kind ml-dsa-87",
        ];
        let told: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("hsm probe: ")).collect();
        assert!(steps.iter().all(|step| told.contains(step)), "{said}");
        assert_eq!(met(&found)[..3], [Some(true); 3], "{found}");
        assert!(found["needs"][0]["because"].as_str().unwrap().contains("found again, a signature takes"), "{found}");
        assert_eq!(objects(), 2, "the CA's pair and nothing else");
    });
}

#[test]
fn what_it_says_to_write_is_a_configuration_that_the_server_reads() {
    SoftHsm::run_in_child("what_it_says_to_write_is_a_configuration_that_the_server_reads", |hsm| {
        let pin = hsm.pin_file().display().to_string();
        hsm.initialize_token("two of \"one\" name");
        hsm.initialize_token("two of \"one\" name");
        let slots = json(&SoftHsm::module_path(), &[])["slots"].as_array().unwrap().clone();
        let doubled: Vec<_> = slots.iter().filter(|slot| slot["token"]["label"] == "two of \"one\" name").collect();
        let serial = doubled[0]["token"]["serial"].as_str().unwrap();
        for (token, line) in [
            (LABEL.to_owned(), format!("token_label = \"{LABEL}\"")),
            (format!("pkcs11:serial={serial}?pin-source=file:{pin}"), format!("token_serial = \"{serial}\"")),
        ] {
            let pins: &[&str] = if token.starts_with("pkcs11:") { &[] } else { &["-pinFile", &pin] };
            let found = json(&SoftHsm::module_path(), &[&["-token", &token], pins].concat());
            let stanza = found["configuration"].as_str().unwrap();
            assert!(stanza.contains(&line) && stanza.contains(&format!("pin_file = \"{pin}\"")), "{stanza}");
            let path = hsm.file("server.conf");
            let head = format!(
                "server {{\n trust_domain = \"example.org\"\n data_dir = \"{0}\"\n socket_path = \"{0}.sock\"\n}}\n",
                hsm.file("data").display()
            );
            let stanza = stanza.replace("plugins {", "plugins {\n NodeAttestor \"join_token\" { plugin_data {} }\n");
            fs::write(&path, head + &stanza).unwrap();
            let path = path.display().to_string();
            let checked =
                Command::new(binary("ironroot-server")).args(["validate", "-config", &path]).output().unwrap();
            assert!(checked.status.success(), "{}\n{stanza}", text(&checked.stderr));
            let again = probe(&["-config", &path, "-output", "json"]);
            let again: Value = serde_json::from_slice(&again.stdout).unwrap();
            assert_eq!(met(&again)[..3], [Some(true); 3], "{again}");
        }
    });
}

#[test]
fn a_pin_that_may_be_near_its_lock_is_not_sent_and_a_wrong_one_is_sent_once() {
    Quirks::run_in_child("a_pin_that_may_be_near_its_lock_is_not_sent_and_a_wrong_one_is_sent_once", |hsm, quirks| {
        let module = quirks.module_path().display().to_string();
        let pin = hsm.pin_file().display().to_string();
        for (quirk, why) in [
            ("token_flags 65536", "a wrong PIN was tried since the last login"),
            ("token_flags 131072", "one more wrong PIN would lock it"),
            ("token_flags 262144", "it is locked"),
        ] {
            quirks.set(&[quirk]);
            let refused = probe(&["-module", &module, "-token", LABEL, "-pinFile", &pin]);
            assert_eq!(refused.status.code(), Some(1));
            assert!(text(&refused.stderr).contains(why), "{}", text(&refused.stderr));
            assert!(text(&refused.stdout).contains("User PIN"), "what can be seen is told all the same");
        }
        assert_eq!(quirks.count("C_Login"), 0);
        quirks.set(&[]);
        let wrong = hsm.file("wrong");
        fs::write(&wrong, "not-the-pin").unwrap();
        fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let refused = probe(&["-module", &module, "-token", LABEL, "-pinFile", &wrong.display().to_string()]);
        assert!(text(&refused.stderr).contains("refused the PIN"), "{}", text(&refused.stderr));
        assert_eq!(quirks.count("C_Login"), 1);
    });
}

#[test]
fn a_token_that_can_do_nothing_for_us_is_told_so_and_by_the_exit_code() {
    Quirks::run_in_child("a_token_that_can_do_nothing_for_us_is_told_so_and_by_the_exit_code", |hsm, quirks| {
        let module = quirks.module_path().display().to_string();
        let pin = hsm.pin_file().display().to_string();
        quirks.set(&["fail C_GenerateKeyPair 0x70"]);
        let useless = probe(&["-module", &module, "-token", LABEL, "-pinFile", &pin]);
        assert_eq!(useless.status.code(), Some(1));
        let said = text(&useless.stdout);
        assert!(said.contains("no     ec-p256") && said.contains("CKR_MECHANISM_INVALID"), "{said}");
        let nowhere = probe(&["-module", "/nowhere/p11.so"]);
        assert!(text(&nowhere.stderr).contains("cannot load PKCS#11 module /nowhere/p11.so"));
        assert!(text(&probe(&[]).stderr).contains("name the token maker's library: -module"));
        let both = probe(&["-module", &module, "-config", "/etc/ironroot/server.conf"]);
        assert!(!both.status.success());
    });
}
