//! What an operator is told of entries: what they match, and what would end with them.

#[path = "support/grants.rs"]
mod grants;

use ironroot_api::pb::types;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_server::cli::device::manifest::parse_manifest;
use ironroot_server::devices::DuplicateSerials;
use ironroot_server::registry::{Created, Registry};
use ironroot_server::store::Store;
use tempfile::TempDir;

use grants::administrator;

const NOW: i64 = 1_000;

fn id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "td".into(), path: path.into() })
}

fn entry(path: &str, parent: &str, selectors: &[&str]) -> types::Entry {
    let selector = |text: &&str| {
        let (kind, value) = text.split_once(':').expect("type:value");
        types::Selector { r#type: kind.into(), value: value.into() }
    };
    let selectors = selectors.iter().map(selector).collect();
    types::Entry { spiffe_id: id(path), parent_id: id(parent), selectors, ..types::Entry::default() }
}

async fn registry() -> (TempDir, Registry) {
    let directory = tempfile::tempdir().expect("directory");
    let trust_domain = TrustDomain::new("td").expect("legal");
    let store = Store::open(&directory.path().join("datastore.sqlite3"), &trust_domain).expect("opens");
    (directory, Registry::load(store).await.expect("loads"))
}

async fn create(registry: &Registry, entry: types::Entry) -> String {
    match registry.create_entry(&administrator(), &entry, NOW).await.answer().await.expect("creates") {
        Created::New(entry) => entry.id().to_owned(),
        Created::Similar(entry) => panic!("{} is similar", entry.id()),
    }
}

#[tokio::test]
async fn an_entry_for_devices_says_how_many_it_matches() {
    let (_directory, registry) = registry().await;
    let rows: String =
        (1..=3).map(|n| format!("{},{}\n", format!("{n:02x}").repeat(32), ["rome", "wien"][n % 2])).collect();
    let devices = parse_manifest(&format!("ek_sha256,label:site\n{rows}")).expect("good manifest");
    registry.devices().import(&administrator(), devices, DuplicateSerials::Refused, NOW).await.expect("imports");
    let advice =
        |selectors: &[&str]| registry.advise(&[entry("/g", "/spire/server", selectors)], &[], &|_| false).remove(0);
    assert_eq!(advice(&["tpm2:label:site:wien"]).notes, ["matches 2 of 3 devices"]);
    assert_eq!(advice(&["tpm2:label:site:berlln"]).warnings, ["matches 0 of 3 devices"]);
    let open = advice(&["tpm2:label:site:rome", "tpm2:key:resident"]);
    assert_eq!(open.notes, ["matches 0 of 3 devices; 1 has not attested yet and may match"]);
    let wrong = advice(&["tpm2:label:site=wien"]).warnings;
    assert_eq!(wrong, ["no label gives tpm2:label:site=wien: write tpm2:label:site:wien", "matches 0 of 3 devices"]);
}

#[tokio::test]
async fn an_entry_for_workloads_says_what_it_waits_for() {
    let (_directory, registry) = registry().await;
    create(&registry, entry("/group", "/spire/server", &["tpm2:label:a:b"])).await;
    let advice = |parent: &str, selector: &str| {
        registry.advise(&[entry("/w", parent, &[selector])], &[], &|_| false).remove(0).warnings
    };
    assert_eq!(advice("/group", "unix:uid:1"), [""; 0]);
    assert_eq!(advice("/group", "uid:1"), ["no attestor gives uid:1: did you mean unix:uid:1?"]);
    assert!(
        advice("/nosuchgroup", "unix:uid:1")[0].starts_with("no entry gives the parent ID spiffe://td/nosuchgroup")
    );
    assert!(advice("/spire/agent/tpm2/x", "unix:uid:1")[0].contains("has attested yet"));
    assert!(
        registry.advise(&[types::Entry::default()], &[], &|_| false)[0].warnings.is_empty(),
        "creating it says why it is none"
    );
}

#[tokio::test]
async fn an_entry_with_rights_is_of_no_use_to_a_token() {
    let (_directory, registry) = registry().await;
    let plain = entry("/ci", "/spire/exchange/ci", &["oidc:sub:repo:a/b"]);
    let issuers = [SpiffeId::parse("spiffe://td/spire/exchange/ci").expect("legal")];
    let advice =
        |entry: &types::Entry| registry.advise(std::slice::from_ref(entry), &issuers, &|_| false).remove(0).warnings;
    assert_eq!(advice(&plain), [""; 0]);
    for with_rights in [types::Entry { admin: true, ..plain.clone() }, types::Entry { downstream: true, ..plain }] {
        assert_eq!(
            advice(&with_rights),
            ["no token is exchanged for an entry with -admin or -downstream: leave them out"]
        );
    }
    let by_another =
        registry.advise(&[entry("/ci", "/spire/exchange/ci", &["oidc:sub:repo:a/b"])], &issuers, &|_| true);
    assert!(by_another[0].warnings[0].contains("by another entry"), "{by_another:?}");
}

#[tokio::test]
async fn a_parent_of_an_issuer_that_the_server_does_not_know_is_told() {
    let (_directory, registry) = registry().await;
    let issuers =
        ["ci", "cluster"].map(|name| SpiffeId::parse(&format!("spiffe://td/spire/exchange/{name}")).expect("legal"));
    let advice = |parent: &str, issuers: &[SpiffeId]| {
        registry.advise(&[entry("/ci", parent, &["oidc:sub:repo:a/b"])], issuers, &|_| false).remove(0).warnings
    };
    assert_eq!(advice("/spire/exchange/cluster", &issuers), [""; 0]);
    let unknown = "no issuer is called \"clutser\", so no token has this parent: ";
    for (known, why) in
        [(&issuers[..], "token_exchange has the issuers ci, cluster"), (&[], "the server has no token_exchange")]
    {
        assert_eq!(advice("/spire/exchange/clutser", known), [format!("{unknown}{why}")]);
    }
}

#[tokio::test]
async fn what_would_end_with_an_entry_is_counted() {
    let (_directory, registry) = registry().await;
    let group = create(&registry, entry("/group", "/spire/server", &["tpm2:label:a:b"])).await;
    let child = create(&registry, entry("/w1", "/group", &["unix:uid:1"])).await;
    create(&registry, entry("/w2", "/group", &["unix:uid:2"])).await;
    let ask = |ids: &[&String]| {
        let ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
        registry.dependents(&ids).iter().map(|d| (d.entries, d.given_by_others)).collect::<Vec<_>>()
    };
    assert_eq!(ask(&[&group]), [(2, false)]);
    assert_eq!(ask(&[&group, &child]), [(1, false), (0, false)], "what goes anyway does not count");
    assert_eq!(ask(&[&"none".to_owned()]), []);
    create(&registry, entry("/group", "/spire/server", &["tpm2:label:a:c"])).await;
    assert_eq!(ask(&[&group]), [(2, true)]);
    assert_eq!(registry.dependents(&[group])[0].spiffe_id, SpiffeId::parse("spiffe://td/group").expect("legal"));
}
