//! `localauthority wit` and its verbs.

use std::process::ExitCode;

use clap::Subcommand;
use ironroot_api::pb::localauthority::{
    ActivateWitAuthorityRequest, GetWitAuthorityStateRequest, PrepareWitAuthorityRequest, RevokeWitAuthorityRequest,
    TaintWitAuthorityRequest,
};

use super::display::{Kind, done, shown};
use super::{Named, Plain};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Wit {
    /// Shows the keys of WIT-SVIDs: which signs, which comes next, which signed before.
    #[command(after_help = "Example: ironroot-server localauthority wit show")]
    Show(Plain),
    /// Makes a new key of WIT-SVIDs and publishes it; it signs nothing yet.
    #[command(after_help = "Example: ironroot-server localauthority wit prepare")]
    Prepare(Plain),
    /// Has the prepared key sign WIT-SVIDs from now on.
    #[command(after_help = "Example: ironroot-server localauthority wit activate -authorityID XZ8jGhmX…")]
    Activate(Named),
    /// Says that the key that signed before is in other hands: agents replace its tokens.
    #[command(after_help = "Example: ironroot-server localauthority wit taint -authorityID XZ8jGhmX…")]
    Taint(Named),
    /// Takes a tainted key out of the trust bundle and destroys it.
    #[command(after_help = "Example: ironroot-server localauthority wit revoke -authorityID XZ8jGhmX…")]
    Revoke(Named),
}

impl Wit {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::Show(plain) => plain.run(async |mut client| {
                let answer = client.get_wit_authority_state(GetWitAuthorityStateRequest {}).await?.into_inner();
                Ok(shown(Kind::Wit, [answer.active, answer.prepared, answer.old]))
            }),
            Self::Prepare(plain) => plain.run(async |mut client| {
                let answer = client.prepare_wit_authority(PrepareWitAuthorityRequest {}).await?.into_inner();
                done(Kind::Wit, "prepared", answer.prepared_authority)
            }),
            Self::Activate(named) => named.run(async |mut client, authority_id| {
                let request = ActivateWitAuthorityRequest { authority_id };
                let answer = client.activate_wit_authority(request).await?.into_inner();
                done(Kind::Wit, "activated", answer.activated_authority)
            }),
            Self::Taint(named) => named.run(async |mut client, authority_id| {
                let request = TaintWitAuthorityRequest { authority_id };
                let answer = client.taint_wit_authority(request).await?.into_inner();
                done(Kind::Wit, "tainted", answer.tainted_authority)
            }),
            Self::Revoke(named) => named.run(async |mut client, authority_id| {
                let request = RevokeWitAuthorityRequest { authority_id };
                let answer = client.revoke_wit_authority(request).await?.into_inner();
                done(Kind::Wit, "revoked", answer.revoked_authority)
            }),
        }
    }
}
