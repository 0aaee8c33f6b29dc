//! `federation refresh`.

use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::trustdomain::RefreshBundleRequest;
use ironroot_api::pb::trustdomain::trust_domain_client::TrustDomainClient;
use ironroot_shell::command_line::{CommandError, Reply};
use serde_json::json;
use tonic::Code;

use crate::cli::connection::Connection;

/// Fetches the bundle of another trust domain now.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server federation refresh -id spiffe://partner.example")]
pub(in crate::cli) struct Refresh {
    #[command(flatten)]
    connection: Connection,
    /// SPIFFE ID of the trust domain
    #[arg(long, value_name = "TRUST_DOMAIN", default_value = "", hide_default_value = true)]
    id: String,
}

impl Refresh {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            if self.id.is_empty() {
                return Err(CommandError::Usage("id is required".to_owned()));
            }
            let mut client = TrustDomainClient::new(connection.open().await?);
            match client.refresh_bundle(RefreshBundleRequest { trust_domain: self.id.clone() }).await {
                Ok(_) => Ok(Reply::new(json!({ "code": 0, "message": "OK" }), "Bundle refreshed\n")),
                Err(status) if status.code() == Code::NotFound => Err(CommandError::Usage(format!(
                    "there is no federation relationship with trust domain {:?}",
                    self.id
                ))),
                Err(status) => Err(status.into()),
            }
        })
    }
}
