//! `bundle count`.

use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::bundle::CountBundlesRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_shell::command_line::{Reply, counted};
use serde_json::json;

use crate::cli::connection::Connection;

/// Counts bundles, the server's own among them.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server bundle count")]
pub(in crate::cli) struct Count {
    #[command(flatten)]
    connection: Connection,
}

impl Count {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let mut client = BundleClient::new(connection.open().await?);
            let count = client.count_bundles(CountBundlesRequest {}).await?.into_inner().count;
            let shown = counted(usize::try_from(count).unwrap_or(0), "bundle", "bundles");
            Ok(Reply::new(json!({ "count": count }), format!("{shown}\n")))
        })
    }
}
