//! `bundle list`.

use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::bundle::{GetFederatedBundleRequest, ListFederatedBundlesRequest};
use ironroot_api::pb::types;
use ironroot_shell::command_line::{CommandError, Reply, shown};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::Format;
use crate::cli::connection::Connection;
use crate::cli::messages;

/// Bundles asked for at once: sixteen of the largest fit into an answer.
const PAGE_SIZE: i32 = 12;

/// Shows the bundles of other trust domains.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server bundle list
Example: ironroot-server bundle list -id spiffe://partner.example -format spiffe")]
pub(in crate::cli) struct List {
    #[command(flatten)]
    connection: Connection,
    /// SPIFFE ID of one trust domain
    #[arg(long, value_name = "TRUST_DOMAIN", default_value = "", hide_default_value = true)]
    id: String,
    /// pem: certificates; spiffe: SPIFFE bundle documents (only with -output pretty)
    #[arg(long, value_name = "FORMAT", default_value = "pem")]
    format: Format,
}

impl List {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let mut client = BundleClient::new(connection.open().await?);
            if !self.id.is_empty() {
                let request = GetFederatedBundleRequest { trust_domain: self.id.clone(), output_mask: None };
                let bundle = client.get_federated_bundle(request).await?.into_inner();
                return Ok(Reply::new(messages::bundle(&bundle), self.format.write(&bundle)?));
            }
            let bundles = all(&mut client).await?;
            let texts = bundles.iter().map(|bundle| Ok(header(bundle) + &self.format.write(bundle)?));
            let text = texts.collect::<Result<Vec<_>, CommandError>>()?.join("\n");
            let json =
                json!({ "bundles": bundles.iter().map(messages::bundle).collect::<Value>(), "next_page_token": "" });
            Ok(Reply::new(json, text))
        })
    }
}

async fn all(client: &mut BundleClient<Channel>) -> Result<Vec<types::Bundle>, CommandError> {
    let mut request = ListFederatedBundlesRequest { page_size: PAGE_SIZE, ..Default::default() };
    let mut bundles = Vec::new();
    loop {
        let page = client.list_federated_bundles(request.clone()).await?.into_inner();
        bundles.extend(page.bundles);
        if page.next_page_token.is_empty() {
            return Ok(bundles);
        }
        request.page_token = page.next_page_token;
    }
}

/// Source of the form: SPIRE.
fn header(bundle: &types::Bundle) -> String {
    let line = "****************************************";
    format!("{line}\n* {}\n{line}\n", shown(&bundle.trust_domain))
}
