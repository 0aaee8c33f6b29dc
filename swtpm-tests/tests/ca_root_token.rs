//! A root on a token of its own that is plugged in for a rotation only: the CA below it, with time as an argument.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_hsm::{KeyId, KeyKind, KeyName, Pin, Token, TokenConfig, TokenUri, UserLogin};
use ironroot_lab::authority::{AuthorityLab as Lab, NOW, TRUST_DOMAIN, assert_signs, spki};
use ironroot_lab::softhsm::SoftHsm;
use ironroot_server::ca::{
    CaError, CaSubject, CeremonyRefusal, CertificateAuthority, Exchange, Place, Purpose, RootToken, RootTokenError,
    Slot, SlotName, TokenAuthority, UpstreamError, make_root,
};
use ironroot_server::keys::Key;
use ironroot_shell::command_line::describe;

const DAY: i64 = 24 * 60 * 60;
const YEAR: i64 = 365 * DAY;
const ROOT: &str = "the root";

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// The root's token: of another module than the server's, and in the same place, out of which its files can be carried.
struct Apart {
    config: TokenConfig,
    files: PathBuf,
    roots: PathBuf,
    exchange: PathBuf,
}

impl Apart {
    /// The token with its root, which lives for 20 years from `now` on.
    async fn make(hsm: &SoftHsm, now: i64) -> Self {
        let before = directories(&hsm.token_directory());
        hsm.initialize_token("apart");
        let files = directories(&hsm.token_directory()).into_iter().find(|one| !before.contains(one)).unwrap();
        // The same library at another path is another module: it is started by itself.
        let module_path = hsm.file("another-module.so");
        fs::copy(SoftHsm::module_path(), &module_path).unwrap();
        let login = UserLogin::Pin(Pin::from_file(&hsm.pin_file()).unwrap());
        let config = TokenConfig { module_path, token: TokenUri::with_label("apart"), login, sessions: 1 };
        let apart = Self { config, files, roots: hsm.file("roots.pem"), exchange: hsm.file("exchange") };
        let root = apart.add_root(ROOT, now).await;
        fs::write(&apart.roots, pem(&root)).unwrap();
        apart
    }

    async fn add_root(&self, label: &str, now: i64) -> Certificate {
        let token = Token::open(self.config.clone()).unwrap();
        let id = KeyId::new(label.as_bytes()).unwrap();
        let key = Key::Token(token.generate(KeyKind::EcP384, &id, label).await.unwrap());
        let subject = CaSubject { country: Vec::new(), organization: vec!["Lab".to_owned()], common_name: None };
        make_root(&key, &subject, &TrustDomain::new(TRUST_DOMAIN).unwrap(), 20 * YEAR, now).await.unwrap()
    }

    /// As a configuration that knows the token has it.
    fn authority(&self, label: &str) -> TokenAuthority {
        let login = self.config.login.clone();
        let token = RootToken {
            module_path: self.config.module_path.clone(),
            token: self.config.token.clone(),
            login: Arc::new(move || Ok(login.clone())),
            key: KeyName::labelled(label).unwrap(),
        };
        TokenAuthority { token: Some(token), ..self.paper_only() }
    }

    /// As one that never sees it.
    fn paper_only(&self) -> TokenAuthority {
        TokenAuthority {
            trust_domain: TrustDomain::new(TRUST_DOMAIN).unwrap(),
            roots_path: self.roots.clone(),
            exchange: Exchange::at(self.exchange.clone()),
            token: None,
        }
    }

    fn unplug(&self) {
        fs::rename(&self.files, self.files.parent().unwrap().with_file_name("drawer")).unwrap();
    }

    fn plug_in(&self) {
        fs::rename(self.files.parent().unwrap().with_file_name("drawer"), &self.files).unwrap();
    }

    fn request(&self) -> Option<String> {
        fs::read_to_string(self.exchange.join("ca-request.pem")).ok()
    }
}

fn directories(of: &Path) -> Vec<PathBuf> {
    fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn pem(certificate: &Certificate) -> String {
    der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, certificate.der()).unwrap()
}

fn awaits(started: Result<CertificateAuthority, CaError>) -> bool {
    matches!(started, Err(CaError::Upstream(UpstreamError::AwaitsRoot { .. })))
}

async fn slots(lab: &Lab) -> [String; 2] {
    let journal = lab.journal().await;
    SlotName::BOTH.map(|slot| match journal.slot(Place::ca(slot)) {
        Slot::Empty => "empty".to_owned(),
        Slot::Intended(_) => "intended".to_owned(),
        Slot::Prepared(_) => "prepared".to_owned(),
        Slot::Active(_) => "active".to_owned(),
        other => format!("{other:?}"),
    })
}

//= FLT-S18
#[test]
fn a_roots_token_is_needed_for_each_ca_once_and_may_be_away_for_half_of_its_life() {
    let name = "a_roots_token_is_needed_for_each_ca_once_and_may_be_away_for_half_of_its_life";
    SoftHsm::run_in_child(name, |hsm| {
        run(async {
            let apart = Apart::make(hsm, NOW).await;
            apart.unplug();
            let lab = Lab::new(hsm, YEAR).below_a_token(apart.authority(ROOT));
            assert!(awaits(lab.start(NOW).await), "without its token there is no first CA");
            let asked = apart.request().expect("a request waits");
            assert!(awaits(lab.start(NOW + 60).await));
            assert_eq!(apart.request().unwrap(), asked, "a restart makes no other key");
            apart.plug_in();
            let ca = lab.start(NOW + 120).await.unwrap();
            assert_signs(&ca, NOW + 120).await;
            assert_eq!(apart.request(), None, "what was answered waits no more");
            let root = Certificate::parse_pem(&fs::read_to_string(&apart.roots).unwrap()).unwrap().remove(0);
            assert_eq!(ca.bundle().borrow().authorities, [root.der().to_vec()], "the root alone is in the bundle");
            assert_eq!(ca.sign_server_svid(&spki(), NOW + 120).await.unwrap().chain.len(), 2, "a leaf and its CA");
            drop(ca);
            // Half of a year nobody asks for it; then there is as long to bring it, and the server goes on.
            apart.unplug();
            lab.start(NOW + YEAR / 2).await.unwrap();
            assert_eq!((slots(&lab).await, apart.request()), (["active", "empty"].map(str::to_owned), None));
            for days in [183, 250, 330] {
                assert_signs(&lab.start(NOW + days * DAY).await.unwrap(), NOW + days * DAY).await;
                assert_eq!(slots(&lab).await, ["active", "intended"].map(str::to_owned), "{days} days");
            }
            apart.plug_in();
            lab.start(NOW + 331 * DAY).await.unwrap();
            assert_eq!(slots(&lab).await, ["active", "prepared"].map(str::to_owned));
            apart.unplug();
            let ca = lab.start(NOW + 359 * DAY).await.unwrap();
            assert_signs(&ca, NOW + 359 * DAY).await;
            let active = lab.journal().await.slots(Purpose::X509Ca).active().map(|(slot, _)| slot);
            assert_eq!(
                active,
                Some(SlotName::B),
                "it was certified ahead of time, and signs seven days before the end"
            );
        });
    });
}

#[test]
fn another_roots_token_signs_nothing_and_is_told_by_name() {
    SoftHsm::run_in_child("another_roots_token_signs_nothing_and_is_told_by_name", |hsm| {
        run(async {
            let apart = Apart::make(hsm, NOW).await;
            let next = apart.add_root("the next root", NOW).await;
            let refused = |started: Result<CertificateAuthority, CaError>| match started {
                Err(CaError::Upstream(UpstreamError::Token(RootTokenError::Refused(refusal)))) => refusal,
                other => panic!("{other:?}"),
            };
            let wrong = Lab::new(hsm, YEAR).below_a_token(apart.authority("the next root"));
            assert!(matches!(refused(wrong.start(NOW).await), CeremonyRefusal::WrongToken(_)));
            wrong.forget_keys().await;
            let unknown = Lab::new(hsm, YEAR).below_a_token(apart.authority("no root"));
            assert!(matches!(refused(unknown.start(NOW).await), CeremonyRefusal::NoKey(_)));
            unknown.forget_keys().await;
            let late = Lab::new(hsm, YEAR).below_a_token(apart.authority(ROOT));
            assert!(matches!(refused(late.start(NOW + 21 * YEAR).await), CeremonyRefusal::RootEnded(_)));
            late.forget_keys().await;
            let early = Lab::new(hsm, YEAR).below_a_token(apart.authority(ROOT));
            assert!(matches!(refused(early.start(NOW - DAY).await), CeremonyRefusal::RootNotYet { .. }));
            early.forget_keys().await;
            // Once it is published, the next root signs as well as the first one.
            let both = fs::read_to_string(&apart.roots).unwrap() + &pem(&next);
            fs::write(&apart.roots, both).unwrap();
            let right = Lab::new(hsm, YEAR).below_a_token(apart.authority("the next root"));
            let ca = right.start(NOW).await.unwrap();
            assert_signs(&ca, NOW).await;
            assert_eq!(ca.bundle().borrow().authorities.len(), 2);
        });
    });
}

/// The request of before is for a key of the old kind: that key gives way, and the next request is for another.
#[test]
fn a_ca_that_waits_for_its_root_is_renewed_with_keys_of_another_kind() {
    SoftHsm::run_in_child("a_ca_that_waits_for_its_root_is_renewed_with_keys_of_another_kind", |hsm| {
        run(async {
            let apart = Apart::make(hsm, NOW).await;
            let lab = Lab::new(hsm, YEAR).below_a_token(apart.authority(ROOT));
            lab.start(NOW).await.unwrap();
            apart.unplug();
            lab.start(NOW + 183 * DAY).await.unwrap();
            let before = apart.request().expect("a request waits");
            let lab = lab.with_ca_keys(KeyKind::EcP384);
            lab.start(NOW + 184 * DAY).await.unwrap();
            assert_ne!(
                apart.request().expect("a request waits"),
                before,
                "it is for a key of the kind that is asked for"
            );
            apart.plug_in();
            assert_signs(&lab.start(NOW + 185 * DAY).await.unwrap(), NOW + 185 * DAY).await;
            assert_eq!(slots(&lab).await, ["active", "prepared"].map(str::to_owned));
            let key = lab.token.find_of(KeyKind::EcP384, &lab.key_name(SlotName::B)).await.unwrap();
            assert!(key.is_some());
        });
    });
}

#[test]
fn a_roots_token_that_the_servers_own_module_does_not_see_is_told_with_what_to_do() {
    let name = "a_roots_token_that_the_servers_own_module_does_not_see_is_told_with_what_to_do";
    SoftHsm::run_in_child(name, |hsm| {
        run(async {
            let mut apart = Apart::make(hsm, NOW).await;
            apart.unplug();
            for (module_path, is_told) in [(apart.config.module_path.clone(), false), (SoftHsm::module_path(), true)] {
                apart.config.module_path = module_path;
                let lab = Lab::new(hsm, YEAR).below_a_token(apart.authority(ROOT));
                let awaits = describe(&lab.start(NOW).await.unwrap_err());
                assert!(awaits.contains("is not plugged in"), "{awaits}");
                assert_eq!(awaits.contains("restart the server"), is_told, "{awaits}");
                lab.forget_keys().await;
            }
        });
    });
}
