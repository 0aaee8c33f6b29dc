//! `federation create`, `federation update` and `federation delete`.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::trustdomain::trust_domain_client::TrustDomainClient;
use ironroot_api::pb::trustdomain::{
    BatchCreateFederationRelationshipRequest, BatchDeleteFederationRelationshipRequest,
    BatchUpdateFederationRelationshipRequest,
};
use ironroot_api::pb::types::{FederationRelationship, Status};
use ironroot_shell::command_line::{CommandError, Reply, code_name, shown};
use serde_json::{Value, json};
use tonic::Code;

use super::data::{Asked, Read};
use super::text::describe;
use crate::cli::connection::Connection;
use crate::cli::messages;

/// Makes known where other trust domains show their bundles; the server fetches them from there.
#[derive(Debug, Args)]
#[command(
    after_help = "A file has the form {\"federationRelationships\": [{\"trustDomain\": \"\", \"bundleEndpointURL\": \"\",
  \"bundleEndpointProfile\": \"\", \"endpointSPIFFEID\": \"\", \"trustDomainBundle\": {},
  \"trustDomainBundleFormat\": \"spiffe\"}]}

Example: ironroot-server federation create -trustDomain partner.example \\
             -bundleEndpointURL https://spire.partner.example:8443 \\
             -bundleEndpointProfile https_spiffe \\
             -endpointSpiffeID spiffe://partner.example/spire/server \\
             -trustDomainBundlePath partner.json -trustDomainBundleFormat spiffe"
)]
pub(in crate::cli) struct Create {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    asked: Asked,
}

impl Create {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let Read { relationships, notes } = self.asked.read()?;
            let federation_relationships = relationships.clone();
            let request = BatchCreateFederationRelationshipRequest { federation_relationships, output_mask: None };
            let mut client = TrustDomainClient::new(connection.open().await?);
            let results = client.batch_create_federation_relationship(request).await?.into_inner().results;
            let results = results.into_iter().map(|result| (result.status, result.federation_relationship));
            Ok(Reply { notes, ..reply("create", results, &relationships) })
        })
    }
}

/// Changes where and how the bundles of other trust domains are fetched.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server federation update -trustDomain partner.example \\
             -bundleEndpointURL https://bundles.partner.example -bundleEndpointProfile https_web")]
pub(in crate::cli) struct Update {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    asked: Asked,
}

impl Update {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let Read { relationships, notes } = self.asked.read()?;
            let request = BatchUpdateFederationRelationshipRequest {
                federation_relationships: relationships.clone(),
                ..Default::default()
            };
            let mut client = TrustDomainClient::new(connection.open().await?);
            let results = client.batch_update_federation_relationship(request).await?.into_inner().results;
            let results = results.into_iter().map(|result| (result.status, result.federation_relationship));
            Ok(Reply { notes, ..reply("update", results, &relationships) })
        })
    }
}

/// What became of each: first what worked, then on standard error what did not, as SPIRE's command has it.
fn reply(
    verb: &str,
    results: impl Iterator<Item = (Option<Status>, Option<FederationRelationship>)>,
    asked: &[FederationRelationship],
) -> Reply {
    let (mut reply, mut json) = (Reply::default(), Vec::<Value>::new());
    for ((status, stored), asked) in results.zip(asked) {
        let status = status.unwrap_or_default();
        let shown = stored.as_ref().unwrap_or(asked);
        // Source: SPIRE, which has the line between them on standard output, whatever follows.
        reply.text.push('\n');
        if status.code == Code::Ok as i32 {
            describe(&mut reply.text, shown);
        } else {
            let (code, message) = (code_name(Code::from(status.code)), &status.message);
            let words =
                format!("Failed to {verb} the following federation relationship (code: {code}, msg: {message:?}):");
            writeln!(reply.complaints, "{words}").expect("writing to a string cannot fail");
            describe(&mut reply.complaints, shown);
            reply.failed = true;
        }
        json.push(messages::result(
            Some(&status),
            "federation_relationship",
            stored.as_ref().map(messages::relationship),
        ));
    }
    if reply.failed {
        reply.complaints.push_str(&format!("Error: failed to {verb} one or more federation relationships\n"));
    }
    reply.json = json!({ "results": json });
    reply
}

/// Stops fetching the bundle of another trust domain. The one that is held stays.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server federation delete -id spiffe://partner.example")]
pub(in crate::cli) struct Delete {
    #[command(flatten)]
    connection: Connection,
    /// SPIFFE ID of the trust domain
    #[arg(long, value_name = "TRUST_DOMAIN", default_value = "", hide_default_value = true)]
    id: String,
}

impl Delete {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            if self.id.is_empty() {
                return Err(CommandError::Usage("id is required".to_owned()));
            }
            let request = BatchDeleteFederationRelationshipRequest { trust_domains: vec![self.id.clone()] };
            let mut client = TrustDomainClient::new(connection.open().await?);
            let response = client.batch_delete_federation_relationship(request).await?.into_inner();
            let result = response.results.into_iter().next().unwrap_or_default();
            let status = result.status.unwrap_or_default();
            let name = Some(result.trust_domain.clone().into());
            let json = json!({ "results": [messages::result(Some(&status), "trust_domain", name)] });
            if status.code != Code::Ok as i32 {
                let (name, message) = (&result.trust_domain, &status.message);
                let complaints =
                    format!("Error: failed to delete federation relationship {name:?}: {}\n", shown(message));
                return Ok(Reply { json, complaints, failed: true, ..Reply::default() });
            }
            Ok(Reply::new(json, "federation relationship deleted.\n"))
        })
    }
}
