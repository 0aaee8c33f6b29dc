//! `debug getinfo`.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::pb::debug::debug_client::DebugClient;
use ironroot_api::pb::debug::{GetInfoRequest, GetInfoResponse, get_info_response::Cert};
use ironroot_api::utc;
use ironroot_shell::command_line::{Reply, int64};
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
    let certificate = |cert: &Cert| {
        let mut fields = json!({ "expires_at": int64(cert.expires_at), "subject": cert.subject });
        if let Some(id) = &cert.id {
            fields["id"] = json!({ "trust_domain": id.trust_domain, "path": id.path });
        }
        fields
    };
    json!({
        "svid_chain": info.svid_chain.iter().map(certificate).collect::<Vec<_>>(),
        "uptime": info.uptime,
        "agents_count": info.agents_count,
        "federated_bundles_count": info.federated_bundles_count,
        "entries_count": info.entries_count,
    })
}

/// Source: SPIRE, cmd/spire-server/cli/debug.
fn text(info: &GetInfoResponse) -> String {
    let mut text = format!(
        "Server Debug Info:\n  Uptime:                  {}\n  Registered Agents:       {}\n  Registration Entries:    {}\n  \
         Federated Bundles:       {}\n",
        duration(info.uptime),
        info.agents_count,
        info.entries_count,
        info.federated_bundles_count
    );
    if !info.svid_chain.is_empty() {
        text.push_str("  SVID Chain:\n");
    }
    for (index, cert) in info.svid_chain.iter().enumerate() {
        let id = cert.id.as_ref().map(|id| format!("spiffe://{}{}", id.trust_domain, id.path));
        let (id, expires) = (id.unwrap_or_else(|| "(none)".to_owned()), utc(cert.expires_at));
        write!(
            text,
            "    [{index}] SPIFFE ID:  {id}\n        Subject:    {}\n        Expires At: {expires}\n",
            cert.subject
        )
        .expect("writing to a string cannot fail");
    }
    text
}

/// As Go writes it: `1h2m3s`, without the parts in front that are 0.
fn duration(seconds: i32) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::types::Spiffeid;

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
        assert_eq!([0, 59, 60, 3600].map(duration), ["0s", "59s", "1m0s", "1h0m0s"]);
    }
}
