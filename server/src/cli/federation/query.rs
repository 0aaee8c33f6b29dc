//! `federation list` and `federation show`.

use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::trustdomain::trust_domain_client::TrustDomainClient;
use ironroot_api::pb::trustdomain::{GetFederationRelationshipRequest, ListFederationRelationshipsRequest};
use ironroot_api::pb::types::FederationRelationship;
use ironroot_api::pb::types::federation_relationship::BundleEndpointProfile;
use ironroot_shell::command_line::{CommandError, Reply, counted, table};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::text::describe;
use crate::cli::connection::Connection;
use crate::cli::messages;

/// Relationships asked for at once: as many with the largest bundles fit into an answer.
const PAGE_SIZE: i32 = 12;

/// Lists the trust domains that were made known with federation create.
#[derive(Debug, Args)]
#[command(after_help = "Those of the configuration file (federates_with) are not among them.
Example: ironroot-server federation list")]
pub(in crate::cli) struct List {
    #[command(flatten)]
    connection: Connection,
}

impl List {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let all = all(connection.open().await?).await?;
            let mut text = counted(all.len(), "federation relationship", "federation relationships");
            text = format!("Found {text}\n");
            for relationship in &all {
                text.push('\n');
                describe(&mut text, relationship);
            }
            let list: Value = all.iter().map(messages::relationship).collect();
            let rows: Vec<_> = all.iter().map(row).collect();
            let table = Some(table(&["TRUST DOMAIN", "BUNDLE ENDPOINT", "PROFILE"], &rows));
            Ok(Reply { table, ..Reply::new(json!({ "federation_relationships": list, "next_page_token": "" }), text) })
        })
    }
}

fn row(relationship: &FederationRelationship) -> [String; 3] {
    let profile = match &relationship.bundle_endpoint_profile {
        Some(BundleEndpointProfile::HttpsSpiffe(_)) => "https_spiffe",
        Some(BundleEndpointProfile::HttpsWeb(_)) => "https_web",
        None => "",
    };
    [relationship.trust_domain.clone(), relationship.bundle_endpoint_url.clone(), profile.to_owned()]
}

async fn all(channel: Channel) -> Result<Vec<FederationRelationship>, CommandError> {
    let mut client = TrustDomainClient::new(channel);
    let mut request = ListFederationRelationshipsRequest { page_size: PAGE_SIZE, ..Default::default() };
    let mut all = Vec::new();
    loop {
        let page = client.list_federation_relationships(request.clone()).await?.into_inner();
        all.extend(page.federation_relationships);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

/// Shows where one trust domain shows its bundle.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server federation show -trustDomain partner.example")]
pub(in crate::cli) struct Show {
    #[command(flatten)]
    connection: Connection,
    /// Name of the trust domain
    #[arg(long = "trustDomain", value_name = "TRUST_DOMAIN", default_value = "", hide_default_value = true)]
    trust_domain: String,
}

impl Show {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            if self.trust_domain.is_empty() {
                return Err(CommandError::Usage("a trust domain name is required".to_owned()));
            }
            let trust_domain = self.trust_domain.clone();
            let request = GetFederationRelationshipRequest { trust_domain, output_mask: None };
            let mut client = TrustDomainClient::new(connection.open().await?);
            let relationship = client.get_federation_relationship(request).await?.into_inner();
            let mut text = format!("Found a federation relationship with trust domain {}:\n\n", self.trust_domain);
            describe(&mut text, &relationship);
            Ok(Reply::new(messages::relationship(&relationship), text))
        })
    }
}
