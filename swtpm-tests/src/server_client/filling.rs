//! A server with as many entries as a big one has.

use ironroot_api::pb::entry::BatchCreateEntryRequest;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::types;

use super::ServerClient;
use crate::deployment::TRUST_DOMAIN;

/// Entries in one call, as command lines and controllers make them.
const BATCH: usize = 500;

impl ServerClient {
    /// Adds `count` entries below a thousand parents, each with two selectors.
    pub async fn fill(&self, count: usize) {
        let mut entries = EntryClient::new(self.admin().await);
        for first in (0..count).step_by(BATCH) {
            let batch = (first..count.min(first + BATCH)).map(entry).collect();
            let request = BatchCreateEntryRequest { entries: batch, output_mask: Some(types::EntryMask::default()) };
            let results = entries.batch_create_entry(request).await.expect("answered").into_inner().results;
            let refused = results.iter().find(|result| result.status.as_ref().is_none_or(|status| status.code != 0));
            assert!(refused.is_none(), "{refused:?}");
        }
    }
}

fn entry(n: usize) -> types::Entry {
    let id = |path: String| Some(types::Spiffeid { trust_domain: TRUST_DOMAIN.to_owned(), path });
    types::Entry {
        spiffe_id: id(format!("/region/{}/workload/{n}", n % 40)),
        parent_id: id(format!("/group/{}", n % 1000)),
        selectors: vec![
            types::Selector { r#type: "unix".into(), value: format!("uid:{}", 1000 + n % 5000) },
            types::Selector { r#type: "unix".into(), value: format!("path:/usr/bin/workload-{}", n % 200) },
        ],
        ..types::Entry::default()
    }
}
