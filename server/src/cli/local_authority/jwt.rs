//! `localauthority jwt` and its verbs.

use std::process::ExitCode;

use clap::Subcommand;
use ironroot_api::pb::localauthority::{
    ActivateJwtAuthorityRequest, GetJwtAuthorityStateRequest, PrepareJwtAuthorityRequest, RevokeJwtAuthorityRequest,
    TaintJwtAuthorityRequest,
};

use super::display::{Kind, done, shown};
use super::{Named, Plain};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Jwt {
    /// Shows the keys of JWT-SVIDs: which signs, which comes next, which signed before.
    #[command(after_help = "Example: ironroot-server localauthority jwt show")]
    Show(Plain),
    /// Makes a new key of JWT-SVIDs and publishes it; it signs nothing yet.
    #[command(after_help = "Example: ironroot-server localauthority jwt prepare")]
    Prepare(Plain),
    /// Has the prepared key sign JWT-SVIDs from now on.
    #[command(after_help = "Example: ironroot-server localauthority jwt activate -authorityID XZ8jGhmX…")]
    Activate(Named),
    /// Says that the key that signed before is in other hands: agents drop its tokens.
    #[command(after_help = "Example: ironroot-server localauthority jwt taint -authorityID XZ8jGhmX…")]
    Taint(Named),
    /// Takes a tainted key out of the trust bundle and destroys it.
    #[command(after_help = "Example: ironroot-server localauthority jwt revoke -authorityID XZ8jGhmX…")]
    Revoke(Named),
}

impl Jwt {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::Show(plain) => plain.run(async |mut client| {
                let answer = client.get_jwt_authority_state(GetJwtAuthorityStateRequest {}).await?.into_inner();
                Ok(shown(Kind::Jwt, [answer.active, answer.prepared, answer.old]))
            }),
            Self::Prepare(plain) => plain.run(async |mut client| {
                let answer = client.prepare_jwt_authority(PrepareJwtAuthorityRequest {}).await?.into_inner();
                done(Kind::Jwt, "prepared", answer.prepared_authority)
            }),
            Self::Activate(named) => named.run(async |mut client, authority_id| {
                let request = ActivateJwtAuthorityRequest { authority_id };
                let answer = client.activate_jwt_authority(request).await?.into_inner();
                done(Kind::Jwt, "activated", answer.activated_authority)
            }),
            Self::Taint(named) => named.run(async |mut client, authority_id| {
                let request = TaintJwtAuthorityRequest { authority_id };
                let answer = client.taint_jwt_authority(request).await?.into_inner();
                done(Kind::Jwt, "tainted", answer.tainted_authority)
            }),
            Self::Revoke(named) => named.run(async |mut client, authority_id| {
                let request = RevokeJwtAuthorityRequest { authority_id };
                let answer = client.revoke_jwt_authority(request).await?.into_inner();
                done(Kind::Jwt, "revoked", answer.revoked_authority)
            }),
        }
    }
}
