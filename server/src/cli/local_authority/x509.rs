//! `localauthority x509` and its verbs.

use std::process::ExitCode;

use clap::Subcommand;
use ironroot_api::pb::localauthority::{
    ActivateX509AuthorityRequest, GetX509AuthorityStateRequest, PrepareX509AuthorityRequest,
    RevokeX509AuthorityRequest, TaintX509AuthorityRequest,
};

use super::display::{Kind, done, shown};
use super::{Named, Plain};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum X509 {
    /// Shows the CAs of this server: which signs, which comes next, which signed before.
    #[command(after_help = "Example: ironroot-server localauthority x509 show")]
    Show(Plain),
    /// Makes a new CA and publishes it; it signs nothing yet.
    #[command(after_help = "Example: ironroot-server localauthority x509 prepare")]
    Prepare(Plain),
    /// Has the prepared CA sign from now on.
    #[command(after_help = "Example: ironroot-server localauthority x509 activate -authorityID 1dc2daa3…")]
    Activate(Named),
    /// Says that the key of the CA that signed before is in other hands: what it signed is replaced.
    #[command(after_help = "Example: ironroot-server localauthority x509 taint -authorityID 1dc2daa3…")]
    Taint(Named),
    /// Takes a tainted CA out of the trust bundle and destroys its key.
    #[command(after_help = "Example: ironroot-server localauthority x509 revoke -authorityID 1dc2daa3…")]
    Revoke(Named),
}

impl X509 {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::Show(plain) => plain.run(async |mut client| {
                let answer = client.get_x509_authority_state(GetX509AuthorityStateRequest {}).await?.into_inner();
                Ok(shown(Kind::X509, [answer.active, answer.prepared, answer.old]))
            }),
            Self::Prepare(plain) => plain.run(async |mut client| {
                let answer = client.prepare_x509_authority(PrepareX509AuthorityRequest {}).await?.into_inner();
                done(Kind::X509, "prepared", answer.prepared_authority)
            }),
            Self::Activate(named) => named.run(async |mut client, authority_id| {
                let request = ActivateX509AuthorityRequest { authority_id };
                let answer = client.activate_x509_authority(request).await?.into_inner();
                done(Kind::X509, "activated", answer.activated_authority)
            }),
            Self::Taint(named) => named.run(async |mut client, authority_id| {
                let request = TaintX509AuthorityRequest { authority_id };
                let answer = client.taint_x509_authority(request).await?.into_inner();
                done(Kind::X509, "tainted", answer.tainted_authority)
            }),
            Self::Revoke(named) => named.run(async |mut client, authority_id| {
                let request = RevokeX509AuthorityRequest { authority_id };
                let answer = client.revoke_x509_authority(request).await?.into_inner();
                done(Kind::X509, "revoked", answer.revoked_authority)
            }),
        }
    }
}
