//! What a sealed cache keeps in tests, and what it gives back.

use std::sync::Arc;

use ironroot_agent::agent_key::WorkloadKey;
use ironroot_agent::agent_record::AgentRecord;
use ironroot_agent::federated_bundles::FederatedBundles;
use ironroot_agent::sealed_cache::{CacheRefusal, CachedIdentities, IdentitiesToCache, SealedCache, encode_identities};
use ironroot_agent::server_answers::{EntryTerms, TrustBundle, WorkloadSvid, restored_workload_svid};
use ironroot_agent::server_number::ServerNumber;
use ironroot_agent::trusted_time::{TrustedTime, system_unix};
use ironroot_api::{SpiffeId, TrustDomain};
use zeroize::Zeroizing;

use crate::toy_ca::{ToyCa, ToySvid};

/// What is read after a start.
pub type Restored = (Result<CachedIdentities, CacheRefusal>, Result<AgentRecord, CacheRefusal>);

/// Reads both sections, as an agent that has just started.
pub async fn restore(cache: &mut SealedCache) -> Restored {
    let file = cache.open().await.expect("opened").expect("there is a file");
    let identities = cache.identities(&file, &trust_domain()).await;
    (identities, cache.record(&file, &trust_domain()).await)
}

/// Of all that is kept.
pub fn trust_domain() -> TrustDomain {
    TrustDomain::new("example.org").expect("legal")
}

/// One identity, named by `path`.
pub fn content(path: &str) -> (AgentRecord, Zeroizing<Vec<u8>>) {
    let ca = ToyCa::new("example.org");
    let bundle = Arc::new(TrustBundle::new(&trust_domain(), [(&ca.der()[..], false)]).expect("bundle"));
    let spiffe_id = SpiffeId::parse(&format!("spiffe://example.org{path}")).expect("legal");
    let (der, key) = ca.identity(&ToySvid::new(spiffe_id.as_str(), 3600));
    let key = WorkloadKey::new(Zeroizing::new(key.serialize_der()));
    let svid: WorkloadSvid = restored_workload_svid([&der[..]], &spiffe_id, key, None).expect("svid");
    let terms = EntryTerms {
        server: ServerNumber::FIRST,
        id: "entry".to_owned(),
        spiffe_id,
        selectors: std::iter::once("unix:uid:1000".parse().expect("legal")).collect(),
        hint: String::new(),
        created_at: 1,
        revision_number: 1,
        on_demand: false,
        unique_tokens: Some(false),
        is_privileged: Some(false),
        federates_with: Some(Vec::new()),
        certificate: None,
    };
    let (time, moment) = (TrustedTime::new().record(None), TrustedTime::new().moment());
    let state = IdentitiesToCache {
        bundle: &bundle,
        federated: &FederatedBundles::default(),
        synced_unix: system_unix(),
        time: &time,
        moment: &moment,
        issuance_heads: &[],
    };
    let identities = encode_identities(state, std::iter::once((&terms, Some(&svid))));
    let record = AgentRecord {
        chain: vec![path.as_bytes().to_vec()],
        reattestable: true,
        bundle: Some(bundle),
        left: None,
        time: Some(time),
        attested_boot: "a-boot".into(),
        newest_authority: None,
        disbelieved_since: Some(7),
        local_authority: None,
        local_jwt_key: None,
    };
    (record, identities)
}

/// What [`content`] was named by.
pub fn path_of(identities: &CachedIdentities) -> &str {
    identities.entries[0].0.spiffe_id.path()
}
