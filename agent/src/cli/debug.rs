//! `debug getinfo`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::pb::agent_debug::debug_client::DebugClient;
use ironroot_api::pb::agent_debug::{GetInfoRequest, GetInfoResponse, get_info_response::Cert};
use ironroot_api::utc;
use ironroot_shell::command_line::{Reply, ShownCertificate, chain_text, go_duration, int64};
use serde_json::{Value, json};

use super::admin::Administration;

#[derive(Debug, Subcommand)]
pub(super) enum Debug {
    Getinfo(Getinfo),
}

impl Debug {
    pub(super) fn execute(self) -> ExitCode {
        let Self::Getinfo(getinfo) = self;
        getinfo.execute()
    }
}

/// Shows how long the agent runs, when it was last in sync, how much it holds, and its own certificate.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-agent debug getinfo -socketPath /run/ironroot-agent/private/admin.sock")]
pub(super) struct Getinfo {
    #[command(flatten)]
    administration: Administration,
}

impl Getinfo {
    fn execute(self) -> ExitCode {
        self.administration.run(async |channel| {
            let info = DebugClient::new(channel).get_info(GetInfoRequest {}).await?.into_inner();
            Ok(Reply::new(json(&info), text(&info)))
        })
    }
}

fn json(info: &GetInfoResponse) -> Value {
    json!({
        "svid_chain": chain(info).map(|certificate| certificate.json()).collect::<Vec<_>>(),
        "uptime": info.uptime,
        "svids_count": info.cached_x509_svids_count,
        "last_sync_success": int64(info.last_sync_success),
        "cached_x509_svids_count": info.cached_x509_svids_count,
        "cached_jwt_svids_count": info.cached_jwt_svids_count,
        "cached_svidstore_x509_svids_count": info.cached_svidstore_x509_svids_count,
    })
}

/// Source: SPIRE, cmd/spire-agent/cli/debug.
fn text(info: &GetInfoResponse) -> String {
    let synced = if info.last_sync_success == 0 { "(never)".to_owned() } else { utc(info.last_sync_success) };
    let text = format!(
        "Agent Debug Info:\n  Uptime:                          {}\n  Last Sync Success:               {synced}\n  \
         Cached X.509 SVIDs:              {}\n  Cached JWT SVIDs:                {}\n  Cached SVID Store X.509 SVIDs:   {}\n",
        go_duration(info.uptime),
        info.cached_x509_svids_count,
        info.cached_jwt_svids_count,
        info.cached_svidstore_x509_svids_count,
    );
    text + &chain_text(chain(info))
}

fn chain(info: &GetInfoResponse) -> impl ExactSizeIterator<Item = ShownCertificate<'_>> {
    info.svid_chain.iter().map(shown)
}

fn shown(cert: &Cert) -> ShownCertificate<'_> {
    ShownCertificate { id: cert.id.as_ref(), expires_at: cert.expires_at, subject: &cert.subject }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_is_reads_as_spires_command_prints_it() {
        let info = GetInfoResponse {
            uptime: 61,
            cached_x509_svids_count: 2,
            cached_jwt_svids_count: 3,
            svid_chain: vec![Cert { id: None, expires_at: 0, subject: "O=SPIRE,C=US".into() }],
            ..GetInfoResponse::default()
        };
        let wanted = "Agent Debug Info:
  Uptime:                          1m1s
  Last Sync Success:               (never)
  Cached X.509 SVIDs:              2
  Cached JWT SVIDs:                3
  Cached SVID Store X.509 SVIDs:   0
  SVID Chain:
    [0] SPIFFE ID:  (none)
        Subject:    O=SPIRE,C=US
        Expires At: TIME
"
        .replace("TIME", &utc(0));
        assert_eq!(text(&info), wanted);
        assert_eq!((&json(&info)["svids_count"], &json(&info)["last_sync_success"]), (&json!(2), &json!("0")));
    }
}
