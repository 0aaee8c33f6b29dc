//! `api explain`.

mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::explain::explain_any_client::ExplainAnyClient;
use ironroot_api::pb::explain::explain_client::ExplainClient;
use ironroot_api::pb::explain::explanation::{Entry, Withheld};
use ironroot_api::pb::explain::{ExplainCallerRequest, ExplainProcessRequest, Explanation};
use ironroot_shell::command_line::{CommandError, Output, Reply, block_on, int64, within};
use serde_json::{Value, json};

use crate::cli::admin::{PATIENCE_SECONDS, admin_channel};
use crate::cli::connection::{Connection, asking};
use crate::config::DEFAULT_ADMIN_SOCKET_PATH;
use text::text;

/// Tells which selectors a process has, which entries are its own, and why it is served nothing.
#[derive(Debug, Args)]
#[command(
    after_help = "Without -pid it is about itself, as the workload: run it as the workload's user, in its unit or container. With -pid
it asks the admin socket (admin_socket_path), and also tells which entries nearly match and what the process lacks. Exit code 1: that
process cannot be looked at.

Example: setpriv --reuid=1000 --regid=1000 --clear-groups ironroot-agent api explain
Example: ironroot-agent api explain -pid $(pidof app) -output json"
)]
pub(in crate::cli) struct Explain {
    #[command(flatten)]
    connection: Connection,
    /// The process that it is about
    #[arg(long, value_name = "NUMBER")]
    pid: Option<i32>,
    /// The agent's admin socket, for -pid
    #[arg(long = "adminSocketPath", value_name = "PATH", default_value = DEFAULT_ADMIN_SOCKET_PATH)]
    admin_socket_path: PathBuf,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
}

impl Explain {
    pub(super) fn execute(self) -> ExitCode {
        let answer = async {
            let told = self.ask().await?;
            Ok(Reply { failed: !told.refused.is_empty(), ..Reply::new(to_json(&told), text(&told)) })
        };
        Reply::print(&block_on(within(PATIENCE_SECONDS, answer)), self.output)
    }

    async fn ask(&self) -> Result<Explanation, CommandError> {
        let answer = match self.pid {
            Some(_) if self.connection.is_socket_named() => {
                return Err(CommandError::Usage(
                    "with -pid the agent's admin socket is asked: name that with -adminSocketPath, not -socketPath"
                        .to_owned(),
                ));
            }
            Some(pid) => {
                let channel = admin_channel(&self.admin_socket_path, self.connection.instance()).await?;
                ExplainAnyClient::new(channel).explain_process(ExplainProcessRequest { pid }).await
            }
            None => {
                let mut client = ExplainClient::new(self.connection.open().await?);
                client.explain_caller(asking(ExplainCallerRequest {})).await
            }
        };
        Ok(answer?.into_inner())
    }
}

fn to_json(told: &Explanation) -> Value {
    let withheld = |Withheld { selectors, reason }: &Withheld| json!({ "selectors": selectors, "reason": reason });
    let entry = |entry: &Entry| {
        json!({
            "id": entry.id,
            "spiffe_id": entry.spiffe_id,
            "selectors": entry.selectors,
            "lacks": entry.lacks,
            "state": entry.state,
            "ends_at": int64(entry.ends_at),
        })
    };
    json!({
        "pid": told.pid,
        "uid": told.uid,
        "gid": told.gid,
        "refused": told.refused,
        "selectors": told.selectors,
        "withheld": told.withheld.iter().map(withheld).collect::<Value>(),
        "entries": told.entries.iter().map(entry).collect::<Value>(),
        "nearest": told.nearest.iter().map(entry).collect::<Value>(),
        "reasons": told.reasons,
    })
}
