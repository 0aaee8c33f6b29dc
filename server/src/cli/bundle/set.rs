//! `bundle set`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::TrustDomain;
use ironroot_api::pb::bundle::BatchSetFederatedBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_shell::command_line::{CommandError, Reply, shown};
use serde_json::json;
use tonic::Code;

use super::{BundleFile, Format};
use crate::cli::connection::Connection;
use crate::cli::messages;

/// Stores the bundle of another trust domain, in the place of the one that is there.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server bundle set -id spiffe://partner.example -path partner.pem
Example: ssh partner spire-server bundle show -format spiffe |
             ironroot-server bundle set -id spiffe://partner.example -format spiffe")]
pub(in crate::cli) struct Set {
    #[command(flatten)]
    connection: Connection,
    /// SPIFFE ID of the trust domain
    #[arg(long, value_name = "TRUST_DOMAIN", default_value = "", hide_default_value = true)]
    id: String,
    /// File with the bundle; standard input if not given
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    /// pem: certificates; spiffe: a SPIFFE bundle document
    #[arg(long, value_name = "FORMAT", default_value = "pem")]
    format: Format,
}

impl Set {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let usage = |reason: String| CommandError::Usage(reason);
            if self.id.is_empty() {
                return Err(usage("id flag is required".to_owned()));
            }
            let trust_domain = TrustDomain::new(&self.id).map_err(|why| usage(format!("-id {:?}: {why}", self.id)))?;
            let path = self.path.clone().unwrap_or_else(|| PathBuf::from("-"));
            let BundleFile { bundle, notes } = BundleFile::read(&path, self.format, trust_domain)?;
            let request = BatchSetFederatedBundleRequest { bundle: vec![bundle], output_mask: None };
            let response = BundleClient::new(connection.open().await?).batch_set_federated_bundle(request).await?;
            let result = response.into_inner().results.pop().unwrap_or_default();
            let status = result.status.unwrap_or_default();
            if status.code != Code::Ok as i32 {
                let json = json!({ "results": [messages::result(Some(&status), "bundle", None)] });
                let complaints = format!("Error: failed to set federated bundle: {}\n", shown(&status.message));
                return Ok(Reply { json, complaints, notes, failed: true, ..Reply::default() });
            }
            let bundle = result.bundle.as_ref().map(messages::bundle);
            let json = json!({ "results": [messages::result(Some(&status), "bundle", bundle)] });
            Ok(Reply { notes, ..Reply::new(json, "bundle set.\n") })
        })
    }
}
