//! Envoy's secrets on the socket, asked for as an Envoy asks: names, answers, rotations, rejections, bounds.

#[path = "support/log.rs"]
mod log;
#[path = "support/served.rs"]
mod served;

use std::collections::BTreeMap;

use ironroot_agent::endpoints::{Limits, Most, SdsConfig};
use ironroot_agent::federated_bundles::FederatedBundles;
use ironroot_agent::identities::{Identities, Identity};
use ironroot_agent::report::Stands;
use ironroot_agent::requests;
use ironroot_agent::server_answers::{EntryTerms, ForeignBundle};
use ironroot_api::pb::discovery::{DiscoveryRequest, DiscoveryResponse};
use ironroot_api::pb::envoy_core::DataSource;
use ironroot_api::pb::envoy_core::Node;
use ironroot_api::pb::envoy_core::data_source::Specifier;
use ironroot_api::pb::envoy_tls::secret::Type;
use ironroot_api::pb::envoy_tls::{CertificateValidationContext, Secret, SpiffeCertValidatorConfig};
use ironroot_api::pb::google::rpc;
use ironroot_api::pb::secret::secret_discovery_service_client::SecretDiscoveryServiceClient;
use ironroot_api::pb::types;
use ironroot_api::unix_socket::connect;
use log::Log;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use served::{NOW, Served, patiently, td, terms};
use std::sync::Arc;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

#[test]
fn acts_as_a_workload() {
    served::act();
}

fn naming(names: &[&str]) -> DiscoveryRequest {
    let resource_names = names.iter().map(|name| (*name).to_owned()).collect();
    DiscoveryRequest { resource_names, type_url: SECRET.to_owned(), ..DiscoveryRequest::default() }
}

/// A request of an Envoy whose metadata has `disable_spiffe_cert_validation` set so.
fn wanting_plain(names: &[&str], plain: bool) -> DiscoveryRequest {
    let value = Value { kind: Some(Kind::BoolValue(plain)) };
    let metadata = Struct { fields: [("disable_spiffe_cert_validation".to_owned(), value)].into() };
    DiscoveryRequest { node: Some(Node { metadata: Some(metadata), ..Node::default() }), ..naming(names) }
}

async fn client(served: &Served) -> SecretDiscoveryServiceClient<Channel> {
    SecretDiscoveryServiceClient::new(connect(&served.socket()).await.expect("connects"))
}

async fn fetch(served: &Served, request: DiscoveryRequest) -> Result<DiscoveryResponse, Status> {
    client(served).await.fetch_secrets(request).await.map(tonic::Response::into_inner)
}

/// One side of an open stream.
struct Envoy {
    says: Sender<DiscoveryRequest>,
    hears: Streaming<DiscoveryResponse>,
}

impl Envoy {
    async fn asks(served: &Served, request: DiscoveryRequest) -> Self {
        let (says, said) = mpsc::channel(4);
        says.send(request).await.expect("room");
        let hears = client(served).await.stream_secrets(ReceiverStream::new(said)).await.expect("opens").into_inner();
        Self { says, hears }
    }

    async fn next(&mut self) -> DiscoveryResponse {
        patiently(self.hears.message()).await.expect("no error").expect("no end")
    }

    async fn ending(&mut self) -> Status {
        patiently(self.hears.message()).await.expect_err("an error")
    }

    /// Takes `answer`, naming `names` from now on.
    async fn takes(&self, answer: &DiscoveryResponse, names: &[&str]) {
        let (version_info, response_nonce) = (answer.version_info.clone(), answer.nonce.clone());
        self.says.send(DiscoveryRequest { version_info, response_nonce, ..naming(names) }).await.expect("listens");
    }
}

/// What an answer holds, by name.
fn secrets(answer: &DiscoveryResponse) -> BTreeMap<String, Type> {
    let secret = |any: &prost_types::Any| {
        assert_eq!(any.type_url, SECRET);
        let secret = Secret::decode(&any.value[..]).expect("a secret");
        (secret.name, secret.r#type.expect("of some type"))
    };
    answer.resources.iter().map(secret).collect()
}

fn text(source: Option<DataSource>) -> String {
    let Some(Specifier::InlineBytes(bytes)) = source.and_then(|source| source.specifier) else { panic!("inline") };
    String::from_utf8(bytes.to_vec()).expect("PEM")
}

/// Trust domain and authorities of an Envoy's validator.
fn validated(context: CertificateValidationContext) -> Vec<(String, usize)> {
    assert_eq!(context.trusted_ca, None);
    let custom = context.custom_validator_config.expect("a validator");
    assert_eq!(custom.name, "envoy.tls.cert_validator.spiffe");
    let config = custom.typed_config.expect("configured");
    assert!(config.type_url.ends_with("tls.v3.SPIFFECertValidatorConfig"), "{}", config.type_url);
    let config = SpiffeCertValidatorConfig::decode(&config.value[..]).expect("its configuration");
    let domain = |domain: ironroot_api::pb::envoy_tls::spiffe_cert_validator_config::TrustDomain| {
        (domain.name, text(domain.trust_bundle).matches("BEGIN CERTIFICATE").count())
    };
    config.trust_domains.into_iter().map(domain).collect()
}

/// What an answer is about: `name=certificate`, `name=bundle of td`, `name=plain`.
fn told(answer: &DiscoveryResponse) -> Vec<String> {
    let describe = |(name, secret)| match secret {
        Type::TlsCertificate(certificate) => {
            assert!(text(certificate.private_key).starts_with("-----BEGIN PRIVATE KEY-----"));
            assert_eq!(text(certificate.certificate_chain).matches("BEGIN CERTIFICATE").count(), 1);
            format!("{name}=certificate")
        }
        Type::ValidationContext(context) if context.custom_validator_config.is_some() => {
            format!("{name}=bundle of {:?}", validated(context))
        }
        Type::ValidationContext(context) => {
            format!("{name}={} plain", text(context.trusted_ca).matches("BEGIN CERTIFICATE").count())
        }
    };
    secrets(answer).into_iter().map(describe).collect()
}

/// An Envoy opens its stream and may ask much later.
#[tokio::test]
async fn who_asks_later_on_a_stream_is_told_what_is_its_own_by_then() {
    const GROUP: u32 = 61009;
    let served = Served::new(Limits::default());
    let grouped = format!("unix:supplementary_gid:{GROUP}");
    served
        .publish(vec![served.authority.issue("/a", 0, 3600), served.authority.issue_to("/grouped", &[&grouped], 3600)]);
    let before = nix::unistd::getgroups().expect("groups");
    let with: Vec<_> = before.iter().copied().chain([nix::unistd::Gid::from_raw(GROUP)]).collect();
    nix::unistd::setgroups(&with).expect("as root");
    assert!(secrets(&fetch(&served, naming(&[])).await.expect("served")).contains_key("spiffe://td/grouped"));
    let (says, said) = mpsc::channel(4);
    let mut client = client(&served).await;
    let hears = client.stream_secrets(ReceiverStream::new(said)).await.expect("opens").into_inner();
    nix::unistd::setgroups(&before).expect("as root");
    says.send(naming(&[])).await.expect("room");
    let told = secrets(&Envoy { says, hears }.next().await);
    assert!(told.contains_key("spiffe://td/a") && !told.contains_key("spiffe://td/grouped"), "{:?}", told.keys());
}

/// `identities`, and the bundle of trust domain `other`.
fn publish_federated(served: &Served, identities: Vec<Arc<Identity>>) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("signs").der().to_vec().into();
    let authority = types::X509Certificate { asn1: authority, tainted: false };
    let wire =
        types::Bundle { trust_domain: "other".into(), x509_authorities: vec![authority], ..types::Bundle::default() };
    let mut federated = FederatedBundles::default();
    assert!(federated.add(Arc::new(ForeignBundle::from_answer(&wire, &td("other")).expect("a bundle"))));
    let all = Identities::clone(&served.authority.snapshot(identities)).with_federated(federated);
    served.publisher.send_replace(Arc::new(all));
}

/// With two identities for our own user, and one for another.
fn two() -> Served {
    let served = Served::new(Limits::default());
    let authority = &served.authority;
    let all =
        vec![authority.issue("/a", 0, 3600), authority.issue("/b", 0, 3600), authority.issue("/web", 61001, 3600)];
    served.publish(all);
    served
}

#[tokio::test]
async fn each_name_names_what_it_names_at_spires_agent() {
    let served = two();
    let bundle = |name: &str| format!("{name}=bundle of [(\"td\", 1)]");
    for (names, wanted) in [
        (&["default"][..], vec!["default=certificate".to_owned()]),
        (&["spiffe://td/b"], vec!["spiffe://td/b=certificate".to_owned()]),
        (&["ROOTCA"], vec![bundle("ROOTCA")]),
        (&["ALL"], vec![bundle("ALL")]),
        (&["spiffe://td"], vec![bundle("spiffe://td")]),
        (
            &["ROOTCA", "ALL", "default", "default", ""],
            vec![bundle("ALL"), bundle("ROOTCA"), "default=certificate".into()],
        ),
        (&[], vec![bundle("spiffe://td"), "spiffe://td/a=certificate".into(), "spiffe://td/b=certificate".into()]),
        (&[""], vec![bundle("spiffe://td"), "spiffe://td/a=certificate".into(), "spiffe://td/b=certificate".into()]),
    ] {
        let fetched = fetch(&served, naming(names)).await.expect("served");
        assert_eq!(told(&fetched), wanted, "{names:?}");
        assert_eq!((&*fetched.version_info, &*fetched.nonce, &*fetched.type_url), ("", "", SECRET), "fetched once");
        let streamed = Envoy::asks(&served, naming(names)).await.next().await;
        assert_eq!(secrets(&streamed), secrets(&fetched), "{names:?}");
        assert_eq!((streamed.version_info.as_str(), streamed.nonce.len()), ("1", 8));
    }
    let chain = served.publisher.borrow().iter().next().expect("the first").chain_der().clone();
    let Type::TlsCertificate(first) =
        secrets(&fetch(&served, naming(&["default"])).await.expect("served"))["default"].clone()
    else {
        panic!("a certificate")
    };
    let first = ironroot_text::pem::certificates(&text(first.certificate_chain)).expect("PEM");
    assert_eq!(&first[0][..], &chain[..], "default is that of the least entry ID, as at the Workload API");
}

#[tokio::test]
async fn what_is_not_the_callers_is_refused_in_spires_words_and_said_in_the_log() {
    let (served, log) = (two(), Log::start());
    let words = "workload is not authorized for the requested identities [\"spiffe://td/none\" \"spiffe://td/web\"]";
    let names = ["spiffe://td/web", "default", "spiffe://td/none"];
    let fetched = fetch(&served, naming(&names)).await.expect_err("refused");
    assert_eq!((fetched.code(), fetched.message()), (Code::InvalidArgument, words));
    let streamed = Envoy::asks(&served, naming(&names)).await.ending().await;
    assert_eq!((streamed.code(), streamed.message()), (Code::InvalidArgument, words));
    let log = log.text();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("asked for what is not its own")).collect();
    assert_eq!(lines.len(), 1, "one of this user within a while: {log}");
    for part in
        ["uid=0", "pid=", "names=spiffe://td/none", "nearest=spiffe://td/web", "lacks=unix:uid:61001", "selectors="]
    {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
}

#[tokio::test]
async fn a_refusal_of_many_long_names_is_short() {
    let served = two();
    let many: Vec<String> = (0..20).map(|n| format!("{n:02}{}", "x".repeat(900))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let refused = fetch(&served, naming(&many)).await.expect_err("refused");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("(902 bytes)") && refused.message().contains("and 12 more"), "{refused}");
    assert!(refused.message().len() < 4096, "{}", refused.message().len());
}

/// An Envoy that only verifies others has no identity, and what it verifies them by is public.
#[tokio::test]
async fn who_has_no_entry_gets_the_trust_domains_bundle_as_of_spires_agent() {
    let served = Served::new(Limits::default());
    let terms = EntryTerms { federates_with: Some(vec![td("other")]), ..terms("/web", &["unix:uid:61001"]) };
    publish_federated(&served, vec![served.authority.issue_for(terms, NOW - 60..NOW + 3600)]);
    let bundle = |name: &str| vec![format!("{name}=bundle of [(\"td\", 1)]")];
    for (names, wanted) in [
        (&["ROOTCA"][..], bundle("ROOTCA")),
        (&["ALL"], bundle("ALL")),
        (&["spiffe://td"], bundle("spiffe://td")),
        (&[], bundle("spiffe://td")),
    ] {
        assert_eq!(told(&fetch(&served, naming(names)).await.expect("public")), wanted, "{names:?}");
        let mut envoy = Envoy::asks(&served, naming(names)).await;
        assert_eq!(told(&envoy.next().await), wanted, "{names:?}");
    }
    let refused = fetch(&served, naming(&["spiffe://other"])).await.expect_err("no entry of its own federates");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn who_has_no_entry_and_asks_for_a_certificate_gets_none_and_leaves_its_line() {
    let (served, log) = (Served::new(Limits::default()), Log::start());
    served.publish(vec![served.authority.issue("/web", 61001, 3600)]);
    let refused = fetch(&served, naming(&["default", "ROOTCA"])).await.expect_err("nobody");
    let words = "workload is not authorized for the requested identities [\"default\"]";
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, words));
    let refused = Envoy::asks(&served, naming(&["spiffe://td/web"])).await.ending().await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    let log = log.text();
    let line = log.lines().find(|line| line.contains("No identity issued")).unwrap_or_else(|| panic!("{log}"));
    for part in ["method=\"FetchSecrets\"", "nearest=spiffe://td/web", "lacks=unix:uid:61001", "uid=0"] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

/// It is given what is known, and not told that there is no more.
#[tokio::test]
async fn while_a_server_has_not_answered_who_has_no_entry_gets_the_bundle_and_is_not_refused_for_good() {
    let served = Served::new(Limits::default());
    let some = served.authority.snapshot(vec![served.authority.issue("/web", 61001, 3600)]);
    served.publisher.send_replace(Arc::new(Identities::clone(&some).partial(true)));
    assert_eq!(told(&fetch(&served, naming(&["ROOTCA"])).await.expect("known")), ["ROOTCA=bundle of [(\"td\", 1)]"]);
    for names in [&["default"][..], &["spiffe://other"], &[]] {
        let early = fetch(&served, naming(names)).await.expect_err("too early");
        assert_eq!(early.code(), Code::Unavailable, "{names:?}: {early}");
    }
    let whole = Identities::clone(&some);
    served.publisher.send_replace(Arc::new(whole.clone()));
    let mut envoy = Envoy::asks(&served, naming(&[])).await;
    assert_eq!(told(&envoy.next().await), ["spiffe://td=bundle of [(\"td\", 1)]"]);
    served.publish(vec![served.authority.issue("/a", 0, 3600)]);
    assert!(secrets(&envoy.next().await).contains_key("spiffe://td/a"), "an entry that comes later is told of");
    served.publisher.send_replace(Arc::new(whole.of_cast_out(Some(Stands::Banned))));
    let refused = fetch(&served, naming(&["ROOTCA"])).await.expect_err("who is cast out hears of no new authorities");
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "no identity issued"));
}

/// SPIRE hides them in the Workload API alone.
#[tokio::test]
async fn entries_of_one_hint_are_all_served_and_the_workload_api_says_which_it_does_not_show() {
    let (served, log) = (Served::new(Limits::default()), Log::start());
    let hinted = |path: &str, created_at, foreign: &[&str], ttl| {
        let federates_with = Some(foreign.iter().map(|name| td(name)).collect());
        let hint = "internal".to_owned();
        let terms = EntryTerms { hint, created_at, federates_with, ..terms(path, &["unix:uid:0"]) };
        served.authority.issue_for(terms, NOW - 60..NOW + ttl)
    };
    let all = vec![hinted("/a", 2, &["other"], 60), hinted("/b", 1, &[], 3600)];
    publish_federated(&served, all);
    let everything = fetch(&served, naming(&[])).await.expect("served");
    let names: Vec<_> = secrets(&everything).into_keys().collect();
    assert_eq!(names, ["spiffe://other", "spiffe://td", "spiffe://td/a", "spiffe://td/b"]);
    assert!(fetch(&served, naming(&["spiffe://td/a"])).await.is_ok());
    assert!(!log.text().contains("duplicate hint"), "nothing is hidden from an Envoy");
    for _ in 0..2 {
        let shown = served::next(&mut served.fetch().await.expect("served")).await;
        assert_eq!(served::ids(&shown), ["spiffe://td/b"], "the older one");
    }
    let log = log.text();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("Ignoring entry with duplicate hint")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    for part in ["hint=internal", "entry of /a", "spiffe_id=spiffe://td/a"] {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
}

#[tokio::test]
async fn while_starting_an_envoy_is_told_to_come_again() {
    let served = Served::new(Limits::default());
    let early = fetch(&served, naming(&["default"])).await.expect_err("too early");
    assert_eq!((early.code(), early.message()), (Code::Unavailable, "the agent is still starting"));
    assert_eq!(Envoy::asks(&served, naming(&["default"])).await.ending().await.code(), Code::Unavailable);
}

//= WLA-02 FLT-A23
#[tokio::test]
async fn a_rotation_is_pushed_with_a_new_version_and_what_was_not_named_is_not() {
    let served = Served::new(Limits::default());
    let authority = &served.authority;
    let (old, new) = (authority.issue("/a", 0, 3600), authority.issue("/a", 0, 7200));
    served.publish(vec![old.clone()]);
    let mut identity = Envoy::asks(&served, naming(&["default"])).await;
    let mut bundle = Envoy::asks(&served, naming(&["ROOTCA"])).await;
    let first = identity.next().await;
    identity.takes(&first, &["default"]).await;
    let authorities = bundle.next().await;
    bundle.takes(&authorities, &["ROOTCA"]).await;
    served.publish(vec![old, authority.issue("/web", 61001, 3600)]);
    tokio::task::yield_now().await;
    served.publish(vec![new.clone()]);
    let second = identity.next().await;
    assert_eq!(second.version_info, "2", "the change that is not its own was not told");
    assert_ne!(second.nonce, first.nonce);
    let Type::TlsCertificate(certificate) = secrets(&second)["default"].clone() else { panic!("a certificate") };
    let chain = ironroot_text::pem::certificates(&text(certificate.certificate_chain)).expect("PEM");
    assert_eq!(&chain[0][..], &new.chain_der()[..]);
    // The stream of the bundle hears of the next bundle first.
    let other = served::Authority::new();
    let all = Identities::try_new(td("td"), vec![new], other.bundle()).expect("sound");
    served.publisher.send_replace(Arc::new(all));
    let renewed = bundle.next().await;
    assert_eq!((&*renewed.version_info, told(&renewed)), ("2", told(&authorities)));
    assert_ne!(secrets(&renewed), secrets(&authorities));
}

#[tokio::test]
async fn other_names_are_answered_and_words_about_an_older_answer_are_not() {
    let served = two();
    let mut envoy = Envoy::asks(&served, naming(&["default"])).await;
    let first = envoy.next().await;
    let stale = DiscoveryResponse { nonce: "00".into(), ..first.clone() };
    envoy.takes(&stale, &["spiffe://td/web"]).await;
    envoy.takes(&first, &["default"]).await;
    envoy.takes(&first, &["ALL", "default"]).await;
    let second = envoy.next().await;
    assert_eq!(secrets(&second).into_keys().collect::<Vec<_>>(), ["ALL", "default"]);
    assert_eq!(second.version_info, first.version_info, "nothing has changed");
    envoy.takes(&second, &["spiffe://td/web"]).await;
    assert_eq!(envoy.ending().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_rejection_is_said_in_the_log_and_the_stream_goes_on() {
    let (served, log) = (two(), Log::start());
    let mut envoy = Envoy::asks(&served, naming(&["default"])).await;
    let first = envoy.next().await;
    let error_detail = Some(rpc::Status { code: 3, message: "this key is not for this certificate".to_owned() });
    let response_nonce = first.nonce.clone();
    let rejection = DiscoveryRequest { error_detail, response_nonce, ..naming(&["default"]) };
    envoy.says.send(rejection).await.expect("listens");
    served.publish(vec![served.authority.issue("/a", 0, 7200)]);
    assert_eq!(envoy.next().await.version_info, "2");
    let log = log.text();
    assert!(log.contains("Envoy reported errors applying secrets") && log.contains("this key is not for"), "{log}");
}

#[tokio::test]
async fn a_bundle_is_a_plain_list_where_the_agent_or_the_envoy_says_so() {
    let plain = |served: &mut ironroot_agent::endpoints::WorkloadApiConfig| {
        served.secrets = Some(SdsConfig { disable_spiffe_cert_validation: true, ..SdsConfig::default() });
    };
    for (served, default) in [(two(), false), (Served::with(plain), true)] {
        served.publish(vec![served.authority.issue("/a", 0, 3600)]);
        let is_plain = |answer: &DiscoveryResponse| told(answer) == ["ROOTCA=1 plain"];
        assert_eq!(is_plain(&fetch(&served, naming(&["ROOTCA"])).await.expect("served")), default);
        for wish in [true, false] {
            let answer = fetch(&served, wanting_plain(&["ROOTCA"], wish)).await.expect("served");
            assert_eq!(is_plain(&answer), wish);
        }
        assert_eq!(told(&fetch(&served, wanting_plain(&["ALL"], true)).await.expect("one bundle")), ["ALL=1 plain"]);
    }
}

#[tokio::test]
async fn configured_names_take_the_place_of_spires() {
    let served = Served::with(|config| {
        let [svid, bundle, all] = ["mine", "root", "roots"].map(str::to_owned);
        config.secrets = Some(SdsConfig {
            default_svid_name: svid,
            default_bundle_name: bundle,
            default_all_bundles_name: all,
            disable_spiffe_cert_validation: false,
        });
    });
    served.publish(vec![served.authority.issue("/a", 0, 3600)]);
    let all = fetch(&served, naming(&["mine", "root", "roots"])).await.expect("served");
    assert_eq!(secrets(&all).into_keys().collect::<Vec<_>>(), ["mine", "root", "roots"]);
    for old in ["default", "ROOTCA", "ALL"] {
        assert_eq!(fetch(&served, naming(&[old])).await.expect_err("not any more").code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn what_is_switched_off_is_answered_so() {
    let served = Served::with(|config| config.secrets = None);
    served.publish(vec![served.authority.issue("/a", 0, 3600)]);
    let off = fetch(&served, naming(&["default"])).await.expect_err("off");
    assert_eq!(off.code(), Code::Unimplemented);
    assert!(off.message().contains("disable_sds_api"), "{off}");
    assert!(served.fetch().await.is_ok(), "the Workload API stays");
    let served = Served::with(|config| config.workload_api = false);
    served.publish(vec![served.authority.issue("/a", 0, 3600)]);
    let off = served.fetch().await.expect_err("off");
    assert_eq!(off.code(), Code::Unimplemented);
    assert!(off.message().contains("disable_workload_api"), "{off}");
    assert!(fetch(&served, naming(&["default"])).await.is_ok(), "secrets stay");
}

#[tokio::test]
async fn an_identity_that_is_made_on_demand_is_made_for_an_envoy_and_not_for_one_that_wants_bundles() {
    let mut served = Served::new(Limits::default());
    let entry = EntryTerms { on_demand: true, ..terms("/late", &["unix:uid:0"]) };
    let nothing = Identities::try_new(td("td"), Vec::new(), served.authority.bundle()).expect("sound");
    served.publisher.send_replace(Arc::new(nothing.with_unsigned(vec![Arc::new(entry.clone())])));
    let mut bundle = Envoy::asks(&served, naming(&["ROOTCA"])).await;
    bundle.next().await;
    assert!(served.asked.try_recv().is_err(), "nobody has asked for an identity");
    let mut envoy = Envoy::asks(&served, naming(&["default"])).await;
    let Some(requests::Request::X509Svids { entry_ids, tried }) = patiently(served.asked.recv()).await else {
        panic!("a request")
    };
    assert_eq!(entry_ids, ["entry of /late"]);
    served.publish(vec![served.authority.issue_for(entry, NOW - 60..NOW + 3600)]);
    tried.send(()).expect("waits");
    assert_eq!(told(&envoy.next().await), ["default=certificate"]);
}

#[tokio::test]
async fn what_has_ended_is_not_sent_and_ends_the_stream() {
    let served = two();
    let mut envoy = Envoy::asks(&served, naming(&["default"])).await;
    envoy.next().await;
    served.set_clock(NOW + 3600);
    served.publish(vec![served.authority.issue("/a", 0, 3600)]);
    let ended = envoy.ending().await;
    assert_eq!(ended.code(), Code::Unavailable);
    assert!(ended.message().contains("has expired"), "{ended}");
}

//= FLT-A9
#[tokio::test]
async fn too_many_names_too_long_messages_and_other_resources_are_refused_by_name() {
    let served = two();
    let many: Vec<String> = (0..129).map(|n| format!("spiffe://td/{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let long = "x".repeat(140 * 1024);
    let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    for (request, code, words) in [
        (naming(&many), Code::InvalidArgument, "129 resources, at most 128"),
        (naming(&[&long[..30_000]]), Code::InvalidArgument, "at most 20480 are looked at"),
        (naming(&[&long]), Code::ResourceExhausted, "at most 131072 are read"),
        (DiscoveryRequest { type_url: cluster, ..naming(&[]) }, Code::InvalidArgument, "only resources of type"),
    ] {
        for refused in [
            fetch(&served, request.clone()).await.expect_err("refused"),
            Envoy::asks(&served, request).await.ending().await,
        ] {
            assert_eq!(refused.code(), code, "{words}: {refused}");
            assert!(refused.message().contains(words), "{refused}");
        }
    }
    let mut node = wanting_plain(&["ROOTCA"], true);
    node.node.as_mut().expect("set").id = "x".repeat(100 * 1024);
    assert_eq!(told(&fetch(&served, node).await.expect("an Envoy may say much of itself")), ["ROOTCA=1 plain"]);
}

//= FLT-A6 FLT-A7
#[tokio::test]
async fn a_users_streams_and_messages_have_the_bounds_of_its_other_requests() {
    let served = Served::new(Limits { max_streams_per_user: 1, ..Limits::default() });
    served.publish(vec![served.authority.issue("/a", 0, 3600)]);
    let mut envoy = Envoy::asks(&served, naming(&["default"])).await;
    envoy.next().await;
    let refused = fetch(&served, naming(&["default"])).await.expect_err("full");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let served = Served::new(Limits { burst_per_user: 8, rate_per_user: 1, ..Limits::default() });
    served.publish(vec![served.authority.issue("/a", 0, 3600)]);
    let mut envoy = Envoy::asks(&served, naming(&["default"])).await;
    let first = envoy.next().await;
    // Each is a request, though the stream is one.
    let sending = async {
        for _ in 0..20 {
            let (version_info, response_nonce) = (first.version_info.clone(), first.nonce.clone());
            let request = DiscoveryRequest { version_info, response_nonce, ..naming(&["default"]) };
            if envoy.says.send(request).await.is_err() {
                break;
            }
        }
    };
    patiently(sending).await;
    assert_eq!(envoy.ending().await.code(), Code::Unavailable);
}

//= FLT-A9
#[tokio::test]
async fn one_users_long_messages_wait_for_each_other_and_all_are_read() {
    let served = Served::new(Limits { long_discoveries: Most { per_user: 1, in_all: 64 }, ..Limits::default() });
    served.publish(vec![served.authority.issue("/a", 0, 3600)]);
    let channel = connect(&served.socket()).await.expect("connects");
    let one = |n: usize| {
        let mut client = SecretDiscoveryServiceClient::new(channel.clone());
        let mut request = wanting_plain(&["ROOTCA"], n.is_multiple_of(2));
        request.node.as_mut().expect("set").id = "x".repeat(60 * 1024);
        async move { client.fetch_secrets(request).await }
    };
    // More than a connection's window holds, all on one connection.
    let answers = patiently(futures_util::future::join_all((0..40).map(one))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        let plain = told(&answer.expect("read").into_inner()) == ["ROOTCA=1 plain"];
        assert_eq!(plain, n % 2 == 0);
    }
}
