//! A CA whose keys the HSM's administrator makes: C_GenerateKeyPair and C_DestroyObject are refused to the server.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::time::Duration;

use ironroot_hsm::{KeyId, KeyName};
use ironroot_lab::authority::{AuthorityLab as Lab, NOW, assert_signs};
use ironroot_lab::quirk::Quirks;
use ironroot_lab::softhsm::{LABEL, PIN, SoftHsm};
use ironroot_server::ca::{CaError, Journal, KeyMark, KeyRecord, Origin, Place, SlotName};
use ironroot_server::clock::{ClockSource, Reading};

const DAY: i64 = 24 * 60 * 60;
/// CKR_USER_NOT_LOGGED_IN and CKR_ACTION_PROHIBITED: what HSMs answer to who is not their administrator.
const NOT_ALLOWED: [&str; 2] = ["fail C_GenerateKeyPair 0x101", "fail C_DestroyObject 0x1B"];

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// A ceremony: another process, with the token's own module.
fn make(hsm: &SoftHsm, label: &str, id: &str, more: &[&str]) {
    let module = SoftHsm::module_path();
    let token = ["--module", module.to_str().unwrap(), "--token-label", LABEL, "--login", "--pin", PIN];
    let key = ["--keypairgen", "--label", label, "--id", id, "--usage-sign"];
    let kind: &[&str] = if more.contains(&"--key-type") { &[] } else { &["--key-type", "EC:prime256v1"] };
    hsm.run("pkcs11-tool", &[&token[..], &key, kind, more].concat());
}

fn good(hsm: &SoftHsm, labels: &[&str]) {
    for (number, label) in labels.iter().enumerate() {
        make(hsm, label, &format!("{:02x}", number + 1), &["--sensitive"]);
    }
}

fn labelled(labels: &[&str]) -> Vec<KeyName> {
    labels.iter().map(|label| KeyName::labelled(label).unwrap()).collect()
}

/// The labels of the keys in the places: root A, CA A, CA B.
fn taken(journal: &Journal) -> Vec<Option<String>> {
    let key = |place| {
        let key = journal.slot(place).key()?;
        assert_eq!(key.origin, Origin::Given);
        key.name.label().map(str::to_owned)
    };
    [Place::root(SlotName::A), Place::ca(SlotName::A), Place::ca(SlotName::B)].map(key).to_vec()
}

#[test]
fn keys_of_an_administrator_are_taken_in_turn_and_neither_made_nor_destroyed_by_the_server() {
    const TEST: &str = "keys_of_an_administrator_are_taken_in_turn_and_neither_made_nor_destroyed_by_the_server";
    Quirks::run_in_child(TEST, |hsm, quirks| {
        run(async {
            let labels = ["k1", "k2", "k3", "k4", "k5"];
            good(hsm, &labels);
            quirks.set(&NOT_ALLOWED);
            let lab = Lab::with_token(quirks.token_config(hsm, 2), DAY).rooted(40 * DAY).given(labelled(&labels));
            let mut seen = Vec::new();
            for quarter in 0..8 {
                let now = NOW + quarter * DAY / 4;
                assert_signs(&lab.start(now).await.unwrap(), now).await;
                let taken = taken(&lab.journal().await);
                if seen.last() != Some(&taken) {
                    seen.push(taken);
                }
            }
            let some = |labels: &[&str]| labels.iter().map(|label| Some((*label).to_owned())).collect::<Vec<_>>();
            assert_eq!(seen[0], [Some("k1".to_owned()), Some("k2".to_owned()), None]);
            assert_eq!(seen[1..], [some(&["k1", "k2", "k3"]), some(&["k1", "k4", "k3"]), some(&["k1", "k4", "k5"])]);
            // None is left: what signs goes on, also through a restart, and it is said what is missing.
            let due = NOW + 2 * DAY;
            let ca = lab.start(due).await.unwrap();
            assert_signs(&ca, due).await;
            for label in labels {
                let name = KeyName::labelled(label).unwrap();
                assert!(lab.token.find(&name).await.unwrap().is_some(), "{label} stays in the token");
            }
            assert_eq!(quirks.count("C_GenerateKeyPair"), 0);
            make(hsm, "k6", "06", &["--sensitive"]);
            let lab = lab.given(labelled(&["k1", "k2", "k3", "k4", "k5", "k6"]));
            assert_signs(&lab.start(due).await.unwrap(), due).await;
            assert!(taken(&lab.journal().await).contains(&Some("k6".to_owned())));
        });
    });
}

#[test]
fn a_key_that_is_missing_exposed_or_of_another_curve_is_passed_over_and_one_with_two_names_is_taken_once() {
    const TEST: &str =
        "a_key_that_is_missing_exposed_or_of_another_curve_is_passed_over_and_one_with_two_names_is_taken_once";
    Quirks::run_in_child(TEST, |hsm, quirks| {
        run(async {
            make(hsm, "exposed", "a1", &["--extractable"]);
            make(hsm, "curve", "a2", &["--key-type", "EC:secp384r1", "--sensitive"]);
            make(hsm, "twice", "a3", &["--sensitive"]);
            make(hsm, "twice", "a4", &["--sensitive"]);
            good(hsm, &["k1", "k2"]);
            quirks.set(&[NOT_ALLOWED[0], NOT_ALLOWED[1], "local_false"]);
            let by_id = KeyName::from(&"01".parse::<KeyId>().unwrap());
            let mut keys = labelled(&["exposed", "curve", "missing", "twice"]);
            keys.extend([by_id, KeyName::labelled("k1").unwrap()]);
            let lab = Lab::with_token(quirks.token_config(hsm, 2), DAY).rooted(40 * DAY).given(keys.clone());
            let refused = lab.start(NOW).await.unwrap_err();
            let CaError::NoFreeKey { slot, listed: 6 } = refused else { panic!("{refused}") };
            assert_eq!(slot, Place::ca(SlotName::A), "the root has the one key that is fit");
            keys.extend(labelled(&["k2"]));
            let lab = lab.given(keys);
            assert_signs(&lab.start(NOW).await.unwrap(), NOW).await;
            assert_eq!(taken(&lab.journal().await)[1].as_deref(), Some("k2"));
        });
    });
}

#[test]
fn cas_whose_rows_are_in_one_store_do_not_take_the_same_key() {
    const TEST: &str = "cas_whose_rows_are_in_one_store_do_not_take_the_same_key";
    Quirks::run_in_child(TEST, |hsm, quirks| {
        run(async {
            let labels = ["k1", "k2", "k3", "k4"];
            good(hsm, &labels);
            quirks.set(&NOT_ALLOWED);
            let found = async |name, labels: &[&str]| {
                let lab = Lab::with_token(quirks.token_config(hsm, 2), DAY).given(labelled(labels)).renamed(name);
                lab.start(NOW).await.unwrap();
                lab
            };
            let (one, two) = (found("one", &labels).await, found("two", &labels[1..]).await);
            let two = one.take_in(&two).await.given(labelled(&labels));
            let (now, servers) = (NOW + DAY / 2, [one, two]);
            for server in &servers {
                assert_signs(&server.start(now).await.unwrap(), now).await;
            }
            let mut all = Vec::new();
            for server in &servers {
                all.extend(taken(&server.journal().await).into_iter().flatten());
            }
            all.sort();
            assert_eq!(all, labels);
        });
    });
}

#[test]
fn a_key_that_is_not_fit_any_more_before_it_was_certified_is_replaced_by_the_next() {
    const TEST: &str = "a_key_that_is_not_fit_any_more_before_it_was_certified_is_replaced_by_the_next";
    Quirks::run_in_child(TEST, |hsm, quirks| {
        run(async {
            make(hsm, "exposed", "a1", &["--extractable"]);
            make(hsm, "curve", "a2", &["--key-type", "EC:secp384r1", "--sensitive"]);
            good(hsm, &["k1", "k2"]);
            quirks.set(&NOT_ALLOWED);
            for unfit in ["exposed", "curve"] {
                let lab = Lab::with_token(quirks.token_config(hsm, 2), DAY).given(labelled(&["k1", "k2"]));
                let taken_then = KeyRecord::given(KeyName::labelled(unfit).unwrap(), KeyMark::of(unfit.as_bytes()));
                lab.put(&lab.founding().intend(Place::ca(SlotName::A), taken_then)).await;
                assert_signs(&lab.start(NOW).await.unwrap(), NOW).await;
                assert_eq!(taken(&lab.journal().await)[1].as_deref(), Some("k1"), "instead of {unfit}");
            }
        });
    });
}

#[test]
fn a_prepared_key_that_cannot_be_used_any_more_stops_neither_a_restart_nor_the_rotation() {
    const TEST: &str = "a_prepared_key_that_cannot_be_used_any_more_stops_neither_a_restart_nor_the_rotation";
    Quirks::run_in_child(TEST, |hsm, quirks| {
        run(async {
            let labels = ["k1", "k2", "k3"];
            good(hsm, &labels);
            quirks.set(&NOT_ALLOWED);
            let lab = Lab::with_token(quirks.token_config(hsm, 2), DAY).given(labelled(&labels));
            for now in [NOW, NOW + DAY / 2] {
                lab.start(now).await.unwrap();
            }
            assert_eq!(taken(&lab.journal().await)[1..], [Some("k1".to_owned()), Some("k2".to_owned())]);
            let module = SoftHsm::module_path();
            let token = ["--module", module.to_str().unwrap(), "--token-label", LABEL, "--login", "--pin", PIN];
            let half = ["--delete-object", "--type", "pubkey", "--label", "k2"];
            hsm.run("pkcs11-tool", &[&token[..], &half].concat());
            let due = NOW + DAY * 5 / 6;
            assert_signs(&lab.start(due).await.unwrap(), due).await;
            assert_eq!(taken(&lab.journal().await)[1..], [Some("k1".to_owned()), Some("k3".to_owned())]);
        });
    });
}

/// Between the step that takes a key and the one that certifies it, its name comes to be another key's: one that nobody has used, or one
/// that was used before.
#[test]
fn a_key_that_has_the_name_of_the_one_that_was_taken_is_not_certified_in_its_place() {
    const TEST: &str = "a_key_that_has_the_name_of_the_one_that_was_taken_is_not_certified_in_its_place";
    Quirks::run_in_child(TEST, |hsm, quirks| {
        run(async {
            good(hsm, &["k1", "k2", "k3"]);
            quirks.set(&NOT_ALLOWED);
            let [k1, k2, k3] = ["k1", "k2", "k3"].map(|label| KeyName::labelled(label).unwrap());
            for (used_before, expected) in [(false, "k2"), (true, "k3")] {
                let lab =
                    Lab::with_token(quirks.token_config(hsm, 2), DAY).given(vec![k1.clone(), k2.clone(), k3.clone()]);
                let mark = async |name: &KeyName| KeyMark::of(lab.token.find(name).await.unwrap().unwrap().spki_der());
                let (first, second) = (mark(&k1).await, mark(&k2).await);
                // The journal took k1 when it was called k2.
                let journal = lab.founding().with_used(first.clone());
                let journal = if used_before { journal.with_used(second.clone()) } else { journal };
                lab.put(&journal.intend(Place::ca(SlotName::A), KeyRecord::given(k2.clone(), first))).await;
                assert_signs(&lab.start(NOW).await.unwrap(), NOW).await;
                let journal = lab.journal().await;
                assert_eq!(taken(&journal)[1].as_deref(), Some(expected));
                assert!(
                    journal.has_used(&mark(&KeyName::labelled(expected).unwrap()).await),
                    "what signs is marked as used"
                );
            }
        });
    });
}

/// A journal of before it kept which key was taken: it knows at least which were used.
#[test]
fn a_key_that_no_journal_marked_as_used_is_not_certified() {
    const TEST: &str = "a_key_that_no_journal_marked_as_used_is_not_certified";
    Quirks::run_in_child(TEST, |hsm, quirks| {
        run(async {
            good(hsm, &["k1", "k2"]);
            quirks.set(&NOT_ALLOWED);
            let lab = Lab::with_token(quirks.token_config(hsm, 2), DAY).given(labelled(&["k1", "k2"]));
            let mark = async |label| {
                let key = lab.token.find(&KeyName::labelled(label).unwrap()).await.unwrap().unwrap();
                KeyMark::of(key.spki_der())
            };
            let intended = |journal: Journal, label| {
                let record = KeyRecord::given(KeyName::labelled(label).unwrap(), KeyMark::of(b"left out"));
                String::from_utf8(journal.intend(Place::ca(SlotName::A), record).to_bytes()).unwrap()
            };
            for (label, is_marked, expected) in [("k2", true, "k2"), ("k2", false, "k1")] {
                let journal = lab.founding();
                let journal = if is_marked { journal.with_used(mark(label).await) } else { journal };
                let mut journal: serde_json::Value = serde_json::from_str(&intended(journal, label)).unwrap();
                let key = journal.pointer_mut("/slots/x509-CA/a").unwrap().as_object_mut().unwrap();
                assert!(key.remove("mark").is_some(), "{key:?}");
                lab.put_bytes(journal.to_string().into_bytes()).await;
                assert_signs(&lab.start(NOW).await.unwrap(), NOW).await;
                assert_eq!(taken(&lab.journal().await)[1].as_deref(), Some(expected));
                assert!(lab.journal().await.has_used(&mark(expected).await));
            }
        });
    });
}

/// The root's key is lost, and no key is free: of both it is heard.
#[test]
fn a_lost_root_does_not_hide_that_no_key_is_free() {
    const TEST: &str = "a_lost_root_does_not_hide_that_no_key_is_free";
    Quirks::run_in_child(TEST, |hsm, quirks| {
        run(async {
            good(hsm, &["k1", "k2"]);
            quirks.set(&NOT_ALLOWED);
            let lab = Lab::with_token(quirks.token_config(hsm, 2), DAY).rooted(40 * DAY).given(labelled(&["k1", "k2"]));
            let clocks = ClockSource::new("lab", || Reading { wall_unix: NOW, boot_seconds: 0 });
            let (ca, rotation) = lab.start_rotating(clocks).await.unwrap();
            let module = SoftHsm::module_path();
            let token = ["--module", module.to_str().unwrap(), "--token-label", LABEL, "--login", "--pin", PIN];
            for half in ["pubkey", "privkey"] {
                hsm.run("pkcs11-tool", &[&token[..], &["--delete-object", "--type", half, "--label", "k1"]].concat());
            }
            let running = tokio::spawn(rotation.run());
            let both = || {
                let trouble = ca.rotation_trouble().unwrap_or_default();
                trouble.contains("x509-Root-A") && trouble.contains("no key is free for the next authority")
            };
            let told = tokio::time::timeout(Duration::from_secs(60), async {
                while !both() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
            assert!(told.await.is_ok(), "{:?}", ca.rotation_trouble());
            running.abort();
        });
    });
}

#[test]
fn a_key_that_is_gone_before_it_was_certified_is_replaced_by_the_next() {
    const TEST: &str = "a_key_that_is_gone_before_it_was_certified_is_replaced_by_the_next";
    Quirks::run_in_child(TEST, |hsm, quirks| {
        run(async {
            good(hsm, &["k1", "k2"]);
            quirks.set(&NOT_ALLOWED);
            let lab = Lab::with_token(quirks.token_config(hsm, 2), DAY).given(labelled(&["k1", "k2"]));
            let gone = KeyRecord::given(KeyName::labelled("gone").unwrap(), KeyMark::of(b"gone"));
            lab.put(&lab.founding().intend(Place::ca(SlotName::A), gone)).await;
            assert_signs(&lab.start(NOW).await.unwrap(), NOW).await;
            assert_eq!(taken(&lab.journal().await)[1].as_deref(), Some("k1"));
        });
    });
}
