//! `bundle delete`.

use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use ironroot_api::pb::bundle::BatchDeleteFederatedBundleRequest;
use ironroot_api::pb::bundle::batch_delete_federated_bundle_request::Mode as WireMode;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_shell::command_line::{CommandError, Reply, shown};
use serde_json::json;
use tonic::Code;

use crate::cli::connection::Connection;
use crate::cli::messages;

/// Forgets the bundle of another trust domain.
#[derive(Debug, Args)]
#[command(after_help = "While entries ask for the bundle it stays, unless -mode says what becomes of them.
Example: ironroot-server bundle delete -id spiffe://partner.example -mode dissociate")]
pub(in crate::cli) struct Delete {
    #[command(flatten)]
    connection: Connection,
    /// SPIFFE ID of the trust domain
    #[arg(long, value_name = "TRUST_DOMAIN", default_value = "", hide_default_value = true)]
    id: String,
    /// restrict: not while entries ask for it; delete: they go, too; dissociate: they ask no more
    #[arg(long, value_name = "MODE", default_value = "restrict")]
    mode: Mode,
}

#[derive(Clone, Copy, Debug)]
struct Mode(WireMode);

impl FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" | "restrict" => Ok(Self(WireMode::Restrict)),
            "delete" => Ok(Self(WireMode::Delete)),
            "dissociate" => Ok(Self(WireMode::Dissociate)),
            _ => Err("use restrict, delete or dissociate"),
        }
    }
}

impl Delete {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            if self.id.is_empty() {
                return Err(CommandError::Usage("id is required".to_owned()));
            }
            let request =
                BatchDeleteFederatedBundleRequest { mode: self.mode.0.into(), trust_domains: vec![self.id.clone()] };
            let response = BundleClient::new(connection.open().await?).batch_delete_federated_bundle(request).await?;
            let result = response.into_inner().results.pop().unwrap_or_default();
            let status = result.status.unwrap_or_default();
            let name = Some(result.trust_domain.clone().into());
            let json = json!({ "results": [messages::result(Some(&status), "trust_domain", name)] });
            if status.code != Code::Ok as i32 {
                let (name, message) = (&result.trust_domain, &status.message);
                let complaints = format!("Error: failed to delete federated bundle {name:?}: {}\n", shown(message));
                return Ok(Reply { json, complaints, failed: true, ..Reply::default() });
            }
            Ok(Reply::new(json, "bundle deleted.\n"))
        })
    }
}
