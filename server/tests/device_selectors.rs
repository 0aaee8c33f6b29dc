//! What operators say of a device counts for its agent at once: labels and serial are joined when they are asked for.

#[path = "support/grants.rs"]
mod grants;

use ironroot_api::pb::types;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_server::cli::device::manifest::parse_manifest;
use ironroot_server::devices::DuplicateSerials;
use ironroot_server::facts::agent::AgentRecord;
use ironroot_server::registry::AgentFilter;
use ironroot_server::registry::Registry;
use ironroot_server::registry::SelectorMatch;
use ironroot_server::store::Store;

use grants::administrator;

const EK: [u8; 32] = [1; 32];
const NOW: i64 = 1_000;

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

fn id(path: &str) -> SpiffeId {
    td().id_with_path(path).expect("legal")
}

fn agent() -> AgentRecord {
    // Words of an older server, which stored them with the agent.
    let stored = ["tpm2:fw:1", "tpm2:label:site:vienna", "tpm2:serial:OLD"];
    AgentRecord {
        spiffe_id: id("/spire/agent/tpm2/a"),
        attestation_type: "tpm2".into(),
        serial: "1".into(),
        not_after: 2_000,
        new_serial: String::new(),
        new_not_after: 0,
        can_reattest: true,
        banned: false,
        selectors: stored.map(|text| text.parse().expect("selector")).into_iter().collect(),
        agent_version: String::new(),
        ek_sha256: Some(EK),
        certificate_sha256: None,
    }
}

async fn create(registry: &Registry, path: &str, parent: SpiffeId, selector: &str) {
    let (kind, value) = selector.split_once(':').expect("type:value");
    let entry = types::Entry {
        spiffe_id: Some(id(path).to_pb()),
        parent_id: Some(parent.to_pb()),
        selectors: vec![types::Selector { r#type: kind.into(), value: value.into() }],
        ..types::Entry::default()
    };
    registry.create_entry(&administrator(), &entry, NOW).await.answer().await.expect("creates");
}

async fn import(registry: &Registry, columns: &str, values: &str) {
    let ek = "01".repeat(32);
    let devices = parse_manifest(&format!("ek_sha256,{columns}\n{ek},{values}\n")).expect("good manifest");
    registry.devices().import(&administrator(), devices, DuplicateSerials::Refused, NOW).await.expect("imports");
}

fn served(registry: &Registry) -> Vec<String> {
    let view = registry.authorized_entries(&agent().spiffe_id, NOW);
    view.iter().map(|authorized| authorized.entry().spiffe_id().path().to_owned()).collect()
}

fn listed_by(registry: &Registry, selector: &str) -> usize {
    let (kind, value) = selector.split_once(':').expect("type:value");
    let selectors = vec![types::Selector { r#type: kind.into(), value: value.into() }];
    let superset = types::selector_match::MatchBehavior::MatchSuperset.into();
    let matching = SelectorMatch::from_pb(&types::SelectorMatch { selectors, r#match: superset }).expect("legal");
    let filter = AgentFilter { selectors: Some(matching), ..AgentFilter::default() };
    assert_eq!(registry.list_agents(&filter, 0, "").expect("lists").items.len(), registry.count_agents(&filter));
    registry.count_agents(&filter)
}

#[tokio::test]
async fn a_new_label_serves_the_entries_of_its_group_at_once_and_an_old_one_no_longer() {
    let directory = tempfile::tempdir().expect("directory");
    let store = Store::open(&directory.path().join("datastore.sqlite3"), &td()).expect("opens");
    // As an older server has left it.
    store.change(|tx| tx.put_agent(&agent())).await.map(drop).expect("stored");
    let registry = Registry::load(store).await.expect("loads");
    for site in ["vienna", "berlin", "rome"] {
        create(&registry, &format!("/{site}"), td().server_id(), &format!("tpm2:label:site:{site}")).await;
        create(&registry, &format!("/{site}/app"), id(&format!("/{site}")), "unix:uid:1").await;
    }
    import(&registry, "label:site,serial", "berlin,SN-1").await;
    assert_eq!(served(&registry), ["/berlin/app"], "not the words that were stored at attestation");
    import(&registry, "label:site", "rome").await;
    assert_eq!(served(&registry), ["/rome/app"]);
    let shown = registry.agent(&agent().spiffe_id).expect("known");
    let selectors: Vec<String> = shown.selectors.iter().map(ToString::to_string).collect();
    assert_eq!(selectors, ["tpm2:fw:1", "tpm2:label:site:rome", "tpm2:serial:SN-1"]);
    assert_eq!((listed_by(&registry, "tpm2:label:site:rome"), listed_by(&registry, "tpm2:label:site:vienna")), (1, 0));
    import(&registry, "label:site", "").await;
    assert_eq!(served(&registry), [""; 0]);
    import(&registry, "label:site", "rome").await;
    registry.devices().ban(&administrator(), &EK, NOW).await.map(drop).expect("bans");
    assert_eq!(served(&registry), [""; 0], "of a banned device no word counts");
}
