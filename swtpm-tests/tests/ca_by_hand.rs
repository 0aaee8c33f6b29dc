//! The keys of a CA replaced by hand, on a real token: prepared, activated, tainted, revoked; and whatever the server dies between.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use ironroot_api::certificate::Certificate;
use ironroot_hsm::KeyName;
use ironroot_lab::authority::{
    AuthorityLab as Lab, NOW, administrator, assert_signs, sign_jwt, spki, verify, verify_jwt,
};
use ironroot_lab::deployment::{DEADLINE, expect_within_async};
use ironroot_lab::quirk::Quirks;
use ironroot_lab::softhsm::SoftHsm;
use ironroot_server::ca::{
    Action, AuthorityState, CaError, CertificateAuthority, IssuedSvid, LocalAuthorities, Order, OrderError,
    OrderRefusal, Place, Purpose, Slot, SlotName, TrustBundle,
};
use ironroot_server::clock::{ClockSource, Reading};
use tokio::task::JoinHandle;

const DAY: i64 = 24 * 60 * 60;
const CA: Purpose = Purpose::X509Ca;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// A CA that rotates, and takes orders; its clock stands still.
struct Running {
    ca: CertificateAuthority,
    rotating: JoinHandle<()>,
}

impl Running {
    async fn start(lab: &Lab, now: i64) -> Self {
        let clocks = ClockSource::new("lab", move || Reading { wall_unix: now, boot_seconds: now });
        let (ca, rotation) = lab.start_rotating(clocks).await.unwrap();
        Self { ca, rotating: tokio::spawn(rotation.run()) }
    }

    async fn order(&self, order: Order) -> Result<AuthorityState, OrderError> {
        self.ca.obey(&administrator(), order).await
    }

    async fn done(&self, order: Order) -> AuthorityState {
        let said = format!("{order:?}");
        self.order(order).await.unwrap_or_else(|error| panic!("{said}: {error}"))
    }

    async fn refused(&self, order: Order) -> OrderRefusal {
        match self.order(order).await {
            Err(OrderError::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn state(&self, purpose: Purpose) -> LocalAuthorities {
        self.ca.local_authorities(purpose)
    }

    fn bundle(&self) -> TrustBundle {
        TrustBundle::clone(&self.ca.bundle().borrow())
    }

    async fn svid(&self) -> IssuedSvid {
        self.ca.sign_server_svid(&spki(), NOW).await.unwrap()
    }

    /// As a crash ends it.
    async fn crash(self) {
        self.rotating.abort();
        let _ = self.rotating.await;
    }
}

fn id(state: Option<&AuthorityState>) -> String {
    state.expect("one is there").id.clone()
}

/// Of each authority of the bundle, its ID and whether it is tainted; those that are come first.
fn anchors(bundle: &TrustBundle) -> Vec<(String, bool)> {
    let id = |der: &Vec<u8>| Certificate::parse(der).unwrap().subject_key_id().unwrap();
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let authorities = bundle.authorities.iter();
    let mut anchors: Vec<_> = authorities.map(|der| (hex(id(der)), bundle.tainted_authorities.contains(der))).collect();
    anchors.sort_by_key(|(id, is_tainted)| (!is_tainted, id.clone()));
    anchors
}

async fn is_in_token(lab: &Lab, name: &KeyName) -> bool {
    lab.token.find(name).await.unwrap().is_some()
}

#[test]
fn a_ca_is_replaced_by_hand_step_by_step_and_nothing_of_it_is_left() {
    SoftHsm::run_in_child("a_ca_is_replaced_by_hand_step_by_step_and_nothing_of_it_is_left", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY);
            let server = Running::start(&lab, NOW).await;
            let first = id(server.state(CA).active.as_ref());
            let old = server.svid().await;
            assert_eq!(anchors(&server.bundle()), [(first.clone(), false)]);

            let second = server.done(Order::Prepare(CA)).await;
            assert_eq!((id(server.state(CA).prepared.as_ref()), second.upstream_id.as_str()), (second.id.clone(), ""));
            assert_eq!(second.expires_at_unix, NOW + DAY);
            assert_eq!(anchors(&server.bundle()).len(), 2, "it is published before it signs");
            let svid = Certificate::parse(&server.svid().await.chain[0]).unwrap();
            assert_eq!(svid.authority_key_id(), Certificate::parse(&old.chain[0]).unwrap().authority_key_id());

            assert_eq!(server.done(Order::Activate(CA, second.id.clone())).await, second);
            let LocalAuthorities { active, prepared, old: former, .. } = server.state(CA);
            assert_eq!((id(active.as_ref()), prepared, id(former.as_ref())), (second.id.clone(), None, first.clone()));
            verify(&old, &server.bundle(), NOW).expect("what the first signed is good");

            let before = server.bundle().sequence_number;
            assert_eq!(server.done(Order::Taint(CA, first.clone())).await.id, first);
            let tainted = server.bundle();
            assert!(tainted.sequence_number > before);
            assert_eq!(anchors(&tainted), [(first.clone(), true), (second.id.clone(), false)]);
            verify(&old, &tainted, NOW).expect("it is good until it is replaced");
            assert_signs(&server.ca, NOW).await;

            server.done(Order::Revoke(CA, first.clone())).await;
            assert_eq!(anchors(&server.bundle()), [(second.id.clone(), false)]);
            verify(&old, &server.bundle(), NOW).expect_err("nothing of the first is accepted");
            assert!(!is_in_token(&lab, &lab.key_name(SlotName::A)).await, "its key is destroyed");
            assert!(is_in_token(&lab, &lab.key_name(SlotName::B)).await);
            assert_eq!(server.state(CA).old, None);
            assert_signs(&server.ca, NOW).await;

            // And so it is after a restart, and the plan goes on from there.
            server.crash().await;
            let server = Running::start(&lab, NOW + DAY / 2).await;
            assert_eq!(id(server.state(CA).active.as_ref()), second.id);
            assert!(server.state(CA).prepared.is_some(), "the plan prepares the third");
            server.crash().await;
        });
    });
}

/// As SPIRE's server counts them: whoever watches rotations sees those that an operator orders.
#[test]
fn what_is_prepared_and_activated_by_hand_is_counted_with_what_the_rotation_does() {
    const TEST: &str = "what_is_prepared_and_activated_by_hand_is_counted_with_what_the_rotation_does";
    SoftHsm::run_in_child(TEST, |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).with_jwt();
            let server = Running::start(&lab, NOW).await;
            for purpose in [CA, Purpose::Jwt] {
                let counts = || {
                    let steps = server.ca.steps_done().of(purpose);
                    let codes: Vec<_> =
                        steps.prepared.by_code().map(|(code, elapsed)| (code, elapsed.times())).collect();
                    (codes, steps.activated.count(), steps.failed.count())
                };
                let before = counts();
                let prepared = server.done(Order::Prepare(purpose)).await;
                server.done(Order::Activate(purpose, prepared.id.clone())).await;
                server.refused(Order::Activate(purpose, prepared.id)).await;
                let (codes, activated, failed) = before;
                let codes: Vec<_> = codes.into_iter().map(|(code, times)| (code, times + 1)).collect();
                assert_eq!(counts(), (codes, activated + 1, failed), "{purpose:?}");
            }
        });
    });
}

#[test]
fn a_key_of_jwt_svids_is_replaced_by_hand_and_its_tokens_verify_until_it_is_revoked() {
    const TEST: &str = "a_key_of_jwt_svids_is_replaced_by_hand_and_its_tokens_verify_until_it_is_revoked";
    SoftHsm::run_in_child(TEST, |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).rooted(40 * DAY).with_jwt();
            let server = Running::start(&lab, NOW).await;
            let first = id(server.state(Purpose::Jwt).active.as_ref());
            let old = sign_jwt(&server.ca, NOW).await.unwrap().token;
            let second = server.done(Order::Prepare(Purpose::Jwt)).await.id;
            assert_eq!(
                verify_jwt(&sign_jwt(&server.ca, NOW).await.unwrap().token, &server.bundle()),
                Ok(first.clone())
            );
            server.done(Order::Activate(Purpose::Jwt, second.clone())).await;
            let signing = async || verify_jwt(&sign_jwt(&server.ca, NOW).await.unwrap().token, &server.bundle());
            assert_eq!(signing().await, Ok(second.clone()));
            server.done(Order::Taint(Purpose::Jwt, first.clone())).await;
            let taints = |bundle: &TrustBundle| {
                let mut taints: Vec<_> = bundle.jwt_authorities.iter().map(|key| !key.tainted).collect();
                taints.sort();
                taints
            };
            assert_eq!(taints(&server.bundle()), [false, true]);
            assert_eq!(verify_jwt(&old, &server.bundle()), Ok(first.clone()));
            server.done(Order::Revoke(Purpose::Jwt, first)).await;
            assert_eq!(taints(&server.bundle()), [true]);
            verify_jwt(&old, &server.bundle()).expect_err("no key of this ID");
            assert!(!is_in_token(&lab, &lab.jwt_key_name(SlotName::A)).await);
            assert_eq!(signing().await, Ok(second));
            server.crash().await;
        });
    });
}

#[test]
fn orders_that_may_not_be_carried_out_are_refused_by_name_and_change_nothing() {
    SoftHsm::run_in_child("orders_that_may_not_be_carried_out_are_refused_by_name_and_change_nothing", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).with_jwt();
            let server = Running::start(&lab, NOW).await;
            let active = id(server.state(CA).active.as_ref());
            let jwt = id(server.state(Purpose::Jwt).active.as_ref());
            let before = lab.stored_journal().await;
            let none = String::new;
            for (order, refusal) in [
                (Order::Activate(CA, none()), OrderRefusal::NoId),
                (Order::Activate(CA, active.clone()), OrderRefusal::OtherId),
                (Order::Activate(CA, "ff".to_owned()), OrderRefusal::OtherId),
                (Order::Activate(CA, jwt.clone()), OrderRefusal::OtherId),
                (Order::Taint(CA, none()), OrderRefusal::NoId),
                (Order::Taint(CA, active.clone()), OrderRefusal::TaintsActive),
                (Order::Taint(Purpose::Jwt, jwt.clone()), OrderRefusal::TaintsActive),
                (Order::Taint(CA, "ff".to_owned()), OrderRefusal::OtherId),
                (Order::Revoke(CA, none()), OrderRefusal::RevokesNoId),
                (Order::Revoke(CA, active.clone()), OrderRefusal::RevokesActive),
                (Order::Revoke(Purpose::Jwt, jwt), OrderRefusal::RevokesActive),
                (Order::Revoke(Purpose::Jwt, active), OrderRefusal::NotRevocable(Purpose::Jwt)),
                (Order::TaintUpstream(none()), OrderRefusal::NoRoot),
                (Order::RevokeUpstream("ff".to_owned()), OrderRefusal::NoRoot),
            ] {
                assert_eq!(server.refused(order.clone()).await, refusal, "{order:?}");
            }
            assert_eq!(lab.stored_journal().await, before);
            let prepared = server.done(Order::Prepare(CA)).await.id;
            let not_old = server.refused(Order::Taint(CA, prepared.clone())).await;
            assert!(matches!(not_old, OrderRefusal::NotOld(_)), "{not_old}");
            assert_eq!(server.refused(Order::Revoke(CA, prepared)).await, OrderRefusal::RevokesPrepared(CA));
            server.crash().await;
        });
    });
}

#[test]
fn of_two_operators_each_learns_what_became_of_its_order() {
    SoftHsm::run_in_child("of_two_operators_each_learns_what_became_of_its_order", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY);
            let server = Running::start(&lab, NOW).await;
            let (one, other) = tokio::join!(server.order(Order::Prepare(CA)), server.order(Order::Prepare(CA)));
            let (one, other) = (one.unwrap().id, other.unwrap().id);
            assert_ne!(one, other, "the second replaces what the first prepared");
            assert_eq!(anchors(&server.bundle()).len(), 2);
            let (first, second) = tokio::join!(
                server.order(Order::Activate(CA, other.clone())),
                server.order(Order::Activate(CA, other.clone()))
            );
            assert!(first.is_ok() && matches!(second, Err(OrderError::Refused(OrderRefusal::OtherId))), "{second:?}");
            assert_eq!(server.refused(Order::Activate(CA, one)).await, OrderRefusal::OtherId);
            server.crash().await;
        });
    });
}

/// Rows that the server leaves behind when it dies there, and the token as it is then.
#[test]
fn whatever_a_crash_leaves_of_an_order_is_finished_at_the_next_start() {
    SoftHsm::run_in_child("whatever_a_crash_leaves_of_an_order_is_finished_at_the_next_start", |hsm| {
        run(async {
            let (a, b) = (Place::ca(SlotName::A), Place::ca(SlotName::B));
            let lab = Lab::new(hsm, DAY);
            let server = Running::start(&lab, NOW).await;
            let first = id(server.state(CA).active.as_ref());
            let founded = lab.journal().await;
            let second = server.done(Order::Prepare(CA)).await.id;
            let prepared = lab.journal().await;
            server.crash().await;

            // Intended again, with the key of before or without: another is made.
            for has_key in [true, false] {
                let intended = prepared.clone().replace(b, prepared.slot(b).key().unwrap().clone());
                lab.put(&intended).await;
                if !has_key {
                    lab.token.destroy(&lab.key_name(SlotName::B)).await.unwrap();
                }
                let server = Running::start(&lab, NOW).await;
                let third = id(server.state(CA).prepared.as_ref());
                assert!(third != second && anchors(&server.bundle()).len() == 2, "{has_key}");
                assert_eq!(id(server.state(CA).active.as_ref()), first);
                server.crash().await;
            }
            // Made, and not in the journal: nobody's.
            lab.put(&founded.intend(b, prepared.slot(b).key().unwrap().clone())).await;
            let server = Running::start(&lab, NOW).await;
            let prepared = id(server.state(CA).prepared.as_ref());
            server.done(Order::Activate(CA, prepared.clone())).await;
            server.done(Order::Taint(CA, first.clone())).await;
            server.crash().await;

            // Revoked, and its key is still there or is gone already.
            let tainted = lab.journal().await;
            let key = tainted.slot(a).authority().unwrap().key;
            for has_key in [true, false] {
                lab.put(&tainted.clone().revoke(CA, key)).await;
                if !has_key {
                    lab.token.destroy(&lab.key_name(SlotName::A)).await.unwrap();
                }
                let server = Running::start(&lab, NOW).await;
                assert_eq!(anchors(&server.bundle()), [(prepared.clone(), false)], "{has_key}");
                assert!(!is_in_token(&lab, &lab.key_name(SlotName::A)).await);
                assert_eq!(lab.journal().await.slot(a), &Slot::Empty);
                assert_signs(&server.ca, NOW).await;
                server.crash().await;
                lab.make_key(&lab.key_name(SlotName::A)).await;
            }
        });
    });
}

#[test]
fn a_key_that_the_token_does_not_destroy_is_out_of_the_bundle_all_the_same_and_tried_again() {
    const TEST: &str = "a_key_that_the_token_does_not_destroy_is_out_of_the_bundle_all_the_same_and_tried_again";
    Quirks::run_in_child(TEST, |hsm, quirks| {
        run(async {
            let lab = Lab::with_token(quirks.token_config(hsm, 2), DAY);
            let server = Running::start(&lab, NOW).await;
            let first = id(server.state(CA).active.as_ref());
            let second = server.done(Order::Prepare(CA)).await.id;
            server.done(Order::Activate(CA, second.clone())).await;
            server.done(Order::Taint(CA, first.clone())).await;
            quirks.set(&["fail C_DestroyObject 0x1B"]);
            server.done(Order::Revoke(CA, first)).await;
            assert_eq!(anchors(&server.bundle()), [(second, false)]);
            assert!(is_in_token(&lab, &lab.key_name(SlotName::A)).await);
            assert_signs(&server.ca, NOW).await;
            quirks.set(&[]);
            let is_gone = async || !is_in_token(&lab, &lab.key_name(SlotName::A)).await;
            expect_within_async(DEADLINE, "the key is destroyed", String::new, is_gone).await;
            server.crash().await;
        });
    });
}

#[test]
fn a_root_is_replaced_by_hand_and_what_led_to_it_is_worth_nothing_in_the_end() {
    SoftHsm::run_in_child("a_root_is_replaced_by_hand_and_what_led_to_it_is_worth_nothing_in_the_end", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).rooted(40 * DAY);
            let server = Running::start(&lab, NOW).await;
            let first = id(server.state(Purpose::Root).active.as_ref());
            let active = server.state(CA).active.unwrap();
            assert_eq!(active.upstream_id, first, "the root is what SPIRE calls the upstream authority");
            for order in [Order::Taint(CA, active.id.clone()), Order::Taint(CA, String::new())] {
                assert_eq!(server.refused(order).await, OrderRefusal::IsBelowOwnRoot(Action::Taint));
            }
            let revoke = server.refused(Order::Revoke(CA, active.id)).await;
            assert_eq!(revoke, OrderRefusal::IsBelowOwnRoot(Action::Revoke));
            let signs = server.refused(Order::TaintUpstream(first.to_uppercase())).await;
            assert_eq!(signs, OrderRefusal::SignsActive(Action::Taint));
            let nobody = server.refused(Order::RevokeUpstream(String::new())).await;
            assert_eq!(nobody, OrderRefusal::NoSubject(Action::Revoke));

            let old = server.svid().await;
            let next = server.done(Order::Prepare(Purpose::Root)).await.id;
            assert_eq!(anchors(&server.bundle()).len(), 2);
            server.done(Order::Activate(Purpose::Root, next.clone())).await;
            let ca = server.done(Order::Prepare(CA)).await;
            assert_eq!(ca.upstream_id, next, "what is prepared now is below the next root");
            server.done(Order::Activate(CA, ca.id)).await;
            server.done(Order::TaintUpstream(first.clone())).await;
            assert_eq!(anchors(&server.bundle()), [(first.clone(), true), (next.clone(), false)]);
            verify(&old, &server.bundle(), NOW).unwrap();
            server.done(Order::RevokeUpstream(first)).await;
            assert_eq!(anchors(&server.bundle()), [(next, false)]);
            verify(&old, &server.bundle(), NOW).expect_err("its root is gone");
            for name in [lab.root_key_name(SlotName::A), lab.key_name(SlotName::A)] {
                assert!(!is_in_token(&lab, &name).await, "{name}");
            }
            assert_signs(&server.ca, NOW).await;
            server.crash().await;
            let server = Running::start(&lab, NOW + DAY / 2).await;
            assert_signs(&server.ca, NOW + DAY / 2).await;
            server.crash().await;
        });
    });
}

#[test]
fn a_prepared_key_that_is_lost_is_not_activated() {
    SoftHsm::run_in_child("a_prepared_key_that_is_lost_is_not_activated", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY);
            let server = Running::start(&lab, NOW).await;
            let prepared = server.done(Order::Prepare(CA)).await.id;
            lab.token.destroy(&lab.key_name(SlotName::B)).await.unwrap();
            let lost = server.order(Order::Activate(CA, prepared)).await;
            assert!(matches!(lost, Err(OrderError::Failed(CaError::PreparedLost { .. }))), "{lost:?}");
            assert_signs(&server.ca, NOW).await;
            let another = server.done(Order::Prepare(CA)).await.id;
            server.done(Order::Activate(CA, another)).await;
            assert_signs(&server.ca, NOW).await;
            server.crash().await;
        });
    });
}

fn authority_key_id(svid: &IssuedSvid) -> String {
    let id = Certificate::parse(&svid.chain[0]).unwrap().authority_key_id().unwrap();
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hex_id(name: &KeyName) -> String {
    name.id().unwrap().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The next keys sign at once, whatever has become of the one before; and what is revoked ends no other.
#[test]
fn a_damaged_key_of_a_ca_keeps_no_other_key_from_signing() {
    SoftHsm::run_in_child("a_damaged_key_of_a_ca_keeps_no_other_key_from_signing", |hsm| {
        run(async {
            let half = |hsm: &SoftHsm, name: &KeyName| hsm.delete_public_half(name.label().unwrap());
            let double = |hsm: &SoftHsm, name: &KeyName| {
                let id = hex_id(name);
                let made = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "double", "--id", &id];
                hsm.by_hand(&made);
            };
            for damage in [&half as &dyn Fn(&SoftHsm, &KeyName), &double] {
                let lab = Lab::new(hsm, DAY).rooted(40 * DAY).with_jwt();
                let server = Running::start(&lab, NOW).await;
                damage(hsm, &lab.key_name(SlotName::A));
                let second = server.done(Order::Prepare(CA)).await.id;
                server.done(Order::Activate(CA, second.clone())).await;
                assert_eq!(authority_key_id(&server.svid().await), second, "the CA that was activated signs");
                let first = id(server.state(Purpose::Jwt).active.as_ref());
                let next = server.done(Order::Prepare(Purpose::Jwt)).await.id;
                server.done(Order::Activate(Purpose::Jwt, next.clone())).await;
                let signing = async || verify_jwt(&sign_jwt(&server.ca, NOW).await.unwrap().token, &server.bundle());
                for order in [Order::Taint(Purpose::Jwt, first.clone()), Order::Revoke(Purpose::Jwt, first)] {
                    assert_eq!(signing().await, Ok(next.clone()));
                    server.done(order).await;
                }
                assert_eq!(signing().await, Ok(next));
                server.crash().await;
                lab.forget_keys().await;
            }
        });
    });
}

/// Also while the damaged one is the CA that signs: keys of tokens do not depend on it.
#[test]
fn a_damaged_key_of_the_ca_that_signs_keeps_no_key_of_tokens_from_signing() {
    SoftHsm::run_in_child("a_damaged_key_of_the_ca_that_signs_keeps_no_key_of_tokens_from_signing", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).with_jwt();
            let server = Running::start(&lab, NOW).await;
            hsm.delete_public_half(lab.key_name(SlotName::A).label().unwrap());
            let next = server.done(Order::Prepare(Purpose::Jwt)).await.id;
            server.done(Order::Activate(Purpose::Jwt, next.clone())).await;
            let signing = verify_jwt(&sign_jwt(&server.ca, NOW).await.unwrap().token, &server.bundle());
            assert_eq!(signing, Ok(next));
            assert_signs(&server.ca, NOW).await;
            server.crash().await;
        });
    });
}

#[test]
fn an_order_after_which_nobody_signs_says_so() {
    SoftHsm::run_in_child("an_order_after_which_nobody_signs_says_so", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).with_jwt();
            let server = Running::start(&lab, NOW).await;
            let first = id(server.state(Purpose::Jwt).active.as_ref());
            let second = server.done(Order::Prepare(Purpose::Jwt)).await.id;
            server.done(Order::Activate(Purpose::Jwt, second)).await;
            hsm.delete_public_half(lab.jwt_key_name(SlotName::B).label().unwrap());
            let told = server.order(Order::Taint(Purpose::Jwt, first)).await.unwrap_err();
            assert!(matches!(told, OrderError::SignerMissing { .. }), "{told}");
            let tainted = server.bundle().jwt_authorities.iter().filter(|key| key.tainted).count();
            assert_eq!(tainted, 1, "it is done all the same");
            server.crash().await;
        });
    });
}
