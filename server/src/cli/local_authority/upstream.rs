//! `upstreamauthority` and its verbs: the root above the CAs.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::pb::localauthority::local_authority_client::LocalAuthorityClient;
use ironroot_api::pb::localauthority::{RevokeX509UpstreamAuthorityRequest, TaintX509UpstreamAuthorityRequest};
use ironroot_api::pb::root::root_client::RootClient;
use ironroot_api::pb::root::{ActivateRootRequest, GetRootStateRequest, PrepareRootRequest};
use ironroot_shell::command_line::{CommandError, Reply};
use serde_json::json;
use tonic::transport::Channel;

use super::display::{Kind, done, shown_roots};
use super::{Client, Plain};
use crate::cli::connection::Connection;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum UpstreamAuthority {
    /// Shows the roots of this server: which signs CAs, which comes next, which signed before, and which others are above.
    #[command(after_help = "Example: ironroot-server upstreamauthority show")]
    Show(Plain),
    /// Makes the next root and publishes it; it signs nothing yet.
    #[command(after_help = "Example: ironroot-server upstreamauthority prepare")]
    Prepare(Plain),
    /// Has the prepared root sign the CAs that are prepared from now on.
    #[command(after_help = "Example: ironroot-server upstreamauthority activate -subjectKeyID 1dc2daa3…")]
    Activate(Subject),
    /// Says that the root that signed the CA of before is to be trusted no longer: what leads to it is replaced.
    #[command(after_help = "Example: ironroot-server upstreamauthority taint -subjectKeyID 1dc2daa3…")]
    Taint(Subject),
    /// Takes a tainted root, and the CAs that it signed, out of use, and destroys their keys.
    #[command(after_help = "Example: ironroot-server upstreamauthority revoke -subjectKeyID 1dc2daa3…")]
    Revoke(Subject),
}

/// A command about one root.
#[derive(Debug, Args)]
pub(in crate::cli) struct Subject {
    #[command(flatten)]
    connection: Connection,
    /// The subject key ID of the root's certificate, as upstreamauthority show prints it
    #[arg(long = "subjectKeyID", value_name = "ID", default_value = "", hide_default_value = true)]
    subject_key_id: String,
}

impl UpstreamAuthority {
    pub(in crate::cli) fn execute(self) -> ExitCode {
        match self {
            Self::Show(plain) => plain.on(async |channel| {
                let answer = RootClient::new(channel).get_root_state(GetRootStateRequest {}).await?.into_inner();
                Ok(shown_roots([answer.active, answer.prepared, answer.old], &answer.published))
            }),
            Self::Prepare(plain) => plain.on(async |channel| {
                let answer = RootClient::new(channel).prepare_root(PrepareRootRequest {}).await?.into_inner();
                done(Kind::Root, "prepared", answer.prepared_authority)
            }),
            Self::Activate(subject) => subject.on(async |channel, authority_id| {
                let request = ActivateRootRequest { authority_id };
                let answer = RootClient::new(channel).activate_root(request).await?.into_inner();
                done(Kind::Root, "activated", answer.activated_authority)
            }),
            Self::Taint(subject) => subject.run("Tainted", async |mut client, subject_key_id| {
                let request = TaintX509UpstreamAuthorityRequest { subject_key_id };
                let answer = client.taint_x509_upstream_authority(request).await?.into_inner();
                Ok(answer.upstream_authority_subject_key_id)
            }),
            Self::Revoke(subject) => subject.run("Revoked", async |mut client, subject_key_id| {
                let request = RevokeX509UpstreamAuthorityRequest { subject_key_id };
                let answer = client.revoke_x509_upstream_authority(request).await?.into_inner();
                Ok(answer.upstream_authority_subject_key_id)
            }),
        }
    }
}

impl Subject {
    /// The words are SPIRE's.
    fn on(self, ask: impl AsyncFnOnce(Channel, String) -> Result<Reply, CommandError>) -> ExitCode {
        let Self { connection, subject_key_id } = self;
        connection.run(async |connection| {
            if subject_key_id.is_empty() {
                let text = "the Subject Key ID of the X.509 upstream authority is required";
                return Err(CommandError::Usage(text.to_owned()));
            }
            ask(connection.open().await?, subject_key_id).await
        })
    }

    fn run(self, done: &str, ask: impl AsyncFnOnce(Client, String) -> Result<String, CommandError>) -> ExitCode {
        self.on(async |channel, subject_key_id| {
            let id = ask(LocalAuthorityClient::new(channel), subject_key_id).await?;
            let json = json!({ "upstream_authority_subject_key_id": id });
            Ok(Reply::new(json, format!("{done} X.509 upstream authority:\n  Subject Key ID: {id}\n")))
        })
    }
}
