//! `debug getinfo`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::pb::debug::debug_client::DebugClient;
use ironroot_api::pb::debug::{GetInfoRequest, GetInfoResponse, get_info_response::Cert};
use ironroot_shell::command_line::{Reply, ShownCertificate, chain_text, go_duration};
use serde_json::{Value, json};

use super::connection::Connection;

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

/// Shows how long the server runs, how much it holds, and the certificate that it shows its agents.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server debug getinfo")]
pub(super) struct Getinfo {
    #[command(flatten)]
    connection: Connection,
}

impl Getinfo {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let info = DebugClient::new(connection.open().await?).get_info(GetInfoRequest {}).await?.into_inner();
            Ok(Reply::new(json(&info), text(&info)))
        })
    }
}

fn json(info: &GetInfoResponse) -> Value {
    json!({
        "svid_chain": chain(info).map(|certificate| certificate.json()).collect::<Vec<_>>(),
        "uptime": info.uptime,
        "agents_count": info.agents_count,
        "federated_bundles_count": info.federated_bundles_count,
        "entries_count": info.entries_count,
    })
}

/// Source: SPIRE, cmd/spire-server/cli/debug.
fn text(info: &GetInfoResponse) -> String {
    let text = format!(
        "Server Debug Info:\n  Uptime:                  {}\n  Registered Agents:       {}\n  Registration Entries:    {}\n  \
         Federated Bundles:       {}\n",
        go_duration(info.uptime),
        info.agents_count,
        info.entries_count,
        info.federated_bundles_count
    );
    text + &chain_text(chain(info))
}

fn shown(cert: &Cert) -> ShownCertificate<'_> {
    ShownCertificate { id: cert.id.as_ref(), expires_at: cert.expires_at, subject: &cert.subject }
}

fn chain(info: &GetInfoResponse) -> impl ExactSizeIterator<Item = ShownCertificate<'_>> {
    info.svid_chain.iter().map(shown)
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::types::Spiffeid;
    use ironroot_api::utc;

    use super::*;

    #[test]
    fn what_a_server_is_reads_as_spires_command_prints_it() {
        let id = Spiffeid { trust_domain: "td".into(), path: "/spire/server".into() };
        let chain = [Some(id), None].map(|id| Cert { id, expires_at: 0, subject: "O=SPIRE,C=US".into() });
        let info = GetInfoResponse { svid_chain: chain.to_vec(), uptime: 3723, agents_count: 2, ..Default::default() };
        let wanted = "Server Debug Info:
  Uptime:                  1h2m3s
  Registered Agents:       2
  Registration Entries:    0
  Federated Bundles:       0
  SVID Chain:
    [0] SPIFFE ID:  spiffe://td/spire/server
        Subject:    O=SPIRE,C=US
        Expires At: TIME
    [1] SPIFFE ID:  (none)
        Subject:    O=SPIRE,C=US
        Expires At: TIME
"
        .replace("TIME", &utc(0));
        assert_eq!(text(&info), wanted);
        assert_eq!(json(&info)["svid_chain"][1], json!({ "expires_at": "0", "subject": "O=SPIRE,C=US" }));
    }
}
