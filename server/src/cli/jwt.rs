//! `jwt mint`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::pb::svid::MintJwtsvidRequest;
use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::pb::types::Jwtsvid;
use ironroot_api::{SpiffeId, utc};
use ironroot_shell::command_line::{CommandError, Reply, lifetime_seconds, replace_file, shown};
use serde_json::json;

use super::connection::Connection;
use super::messages;

/// Who may read a token's file: whoever has the token is taken for its subject. Source: SPIRE `diskutil.WritePrivateFile`.
const TOKEN_MODE: u32 = 0o600;

#[derive(Debug, Subcommand)]
pub(super) enum Jwt {
    Mint(Mint),
}

impl Jwt {
    pub(super) fn execute(self) -> ExitCode {
        let Self::Mint(mint) = self;
        mint.execute()
    }
}

/// Mints a JWT-SVID.
#[derive(Debug, Args)]
#[command(
    after_help = "The token goes to standard output, or into a file that only its owner may read. Whoever has it is taken for its \
        subject until it ends.

Example: ironroot-server jwt mint -spiffeID spiffe://example.org/job -audience https://vault.example.org -ttl 5m"
)]
pub(super) struct Mint {
    #[command(flatten)]
    connection: Connection,
    /// SPIFFE ID of the JWT-SVID
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<SpiffeId>,
    /// Audience claim that will be included in the SVID; can be given more than once
    #[arg(long, value_name = "AUDIENCE")]
    audience: Vec<String>,
    /// TTL of the JWT-SVID, in seconds or as 5m; 0: the server's default
    #[arg(long, value_name = "TIME", default_value = "0", allow_negative_numbers = true, value_parser = lifetime_seconds)]
    ttl: i32,
    /// File to write the token to instead of standard output
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

impl Mint {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let request = self.request()?;
            let mut client = SvidClient::new(connection.open().await?);
            let answer = client.mint_jwtsvid(request).await?.into_inner();
            let svid = answer.svid.filter(|svid| !svid.token.is_empty());
            self.reply(&svid.ok_or_else(|| CommandError::Malformed("server response missing token".to_owned()))?)
        })
    }

    /// The words are SPIRE's.
    fn request(&self) -> Result<MintJwtsvidRequest, CommandError> {
        let usage = |text: &str| CommandError::Usage(text.to_owned());
        let id = self.spiffe_id.as_ref().ok_or_else(|| usage("spiffeID must be specified"))?;
        if self.audience.is_empty() {
            return Err(usage("at least one audience must be specified"));
        }
        Ok(MintJwtsvidRequest { id: Some(id.to_pb()), audience: self.audience.clone(), ttl: self.ttl })
    }

    fn reply(&self, svid: &Jwtsvid) -> Result<Reply, CommandError> {
        let reply = match &self.write {
            None => Reply::new(json!({ "svid": messages::jwt_svid(svid) }), format!("{}\n", shown(&svid.token))),
            Some(path) => {
                let written = replace_file(path, svid.token.as_bytes(), TOKEN_MODE);
                written.map_err(|source| CommandError::File { doing: "write", path: path.clone(), source })?;
                let path = path.display().to_string();
                Reply::new(json!({ "path": path }), format!("JWT-SVID written to {path}\n"))
            }
        };
        Ok(Reply { notes: self.shortfall(svid), ..reply })
    }

    /// What is to be known of a token that ends sooner than was asked for.
    fn shortfall(&self, svid: &Jwtsvid) -> String {
        if svid.expires_at.saturating_sub(svid.issued_at) >= i64::from(self.ttl) {
            return String::new();
        }
        format!("JWT-SVID lifetime was capped shorter than specified ttl; expires \"{}\"\n", utc(svid.expires_at))
    }
}
