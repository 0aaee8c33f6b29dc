//! `wit mint`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::jwt::private_jwk;
use ironroot_api::pb::svid::MintWitsvidRequest;
use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::pb::types::Witsvid;
use ironroot_api::{SpiffeId, utc};
use ironroot_shell::command_line::{CommandError, Reply, lifetime_seconds, replace_file, shown};
use rcgen::{KeyPair, PublicKeyData, RsaKeySize, SignatureAlgorithm};
use serde_json::json;
use zeroize::Zeroizing;

use super::connection::Connection;
use super::messages;

/// Who may read what is written: its owner. Source: SPIRE `diskutil.WritePrivateFile`.
const MODE: u32 = 0o600;

#[derive(Debug, Subcommand)]
pub(super) enum Wit {
    Mint(Mint),
}

impl Wit {
    pub(super) fn execute(self) -> ExitCode {
        let Self::Mint(mint) = self;
        mint.execute()
    }
}

/// Makes a key here and has the server sign a WIT-SVID for it, with any ID of a workload: no entry is asked.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints the token and the private key as a JWK; with -write they become the files token and key, which only their owner may \
        read. The token is worth nothing without the key. The server must have WIT-SVIDs switched on.

Example: ironroot-server wit mint -spiffeID spiffe://example.org/job -ttl 5m -write ."
)]
pub(super) struct Mint {
    #[command(flatten)]
    connection: Connection,
    /// SPIFFE ID of the WIT-SVID
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<SpiffeId>,
    /// Key type of the WIT-SVID: ec-p256, ec-p384, rsa-2048 or rsa-4096
    #[arg(long = "keyType", value_name = "TYPE", default_value = "ec-p256")]
    key_type: String,
    /// What the key's holder will sign with, such as ES256, ES384, RS256 or PS256
    #[arg(long = "signingAlgorithm", value_name = "NAME", default_value = "ES256")]
    signing_algorithm: String,
    /// TTL of the WIT-SVID, in seconds or as 5m; 0: the server's default
    #[arg(long, value_name = "TIME", default_value = "0", allow_negative_numbers = true, value_parser = lifetime_seconds)]
    ttl: i32,
    /// Directory to write output to instead of standard output
    #[arg(long, value_name = "DIRECTORY")]
    write: Option<PathBuf>,
}

impl Mint {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let key = self.key()?;
            let request = self.request(&key)?;
            let mut client = SvidClient::new(connection.open().await?);
            let answer = client.mint_witsvid(request).await?.into_inner();
            let svid = answer.svid.filter(|svid| !svid.token.is_empty());
            let svid = svid.ok_or_else(|| CommandError::Malformed("server response missing token".to_owned()))?;
            self.reply(&svid, &key)
        })
    }

    /// The words are SPIRE's.
    fn request(&self, key: &KeyPair) -> Result<MintWitsvidRequest, CommandError> {
        let id = self.spiffe_id.as_ref();
        let id = id.ok_or_else(|| CommandError::Usage("spiffeID must be specified".to_owned()))?;
        Ok(MintWitsvidRequest {
            id: Some(id.to_pb()),
            public_key: key.subject_public_key_info().into(),
            ttl: self.ttl,
            signing_algorithm: self.signing_algorithm.clone(),
        })
    }

    /// Source of the words: SPIRE `validateKeyTypeAndSigningAlgorithm`.
    fn key(&self) -> Result<KeyPair, CommandError> {
        let (kind, algorithm) = (self.key_type.as_str(), self.signing_algorithm.as_str());
        let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).map_err(CommandError::run);
        let ec = |on: &'static SignatureAlgorithm| KeyPair::generate_for(on).map_err(CommandError::run);
        let unfit = |what: String| Err(CommandError::Usage(format!("unsupported key type '{kind}' for {what}")));
        match (algorithm, kind) {
            ("RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512", "rsa-2048") => rsa(RsaKeySize::_2048),
            ("RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512", "rsa-4096") => rsa(RsaKeySize::_4096),
            ("RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512", _) => {
                unfit(format!("signing algorithm '{algorithm}'"))
            }
            ("ES256", "ec-p256") => ec(&rcgen::PKCS_ECDSA_P256_SHA256),
            ("ES384", "ec-p384") => ec(&rcgen::PKCS_ECDSA_P384_SHA384),
            ("ES256" | "ES384", _) => unfit(format!("'{algorithm}' signing algorithm")),
            _ => Err(CommandError::Usage(format!("unsupported signing algorithm: {algorithm}"))),
        }
    }

    fn reply(&self, svid: &Witsvid, key: &KeyPair) -> Result<Reply, CommandError> {
        let jwk = private_jwk(&Zeroizing::new(key.serialize_der()));
        let jwk = jwk.ok_or_else(|| CommandError::Malformed("the fresh key has no JWK".to_owned()))?;
        let reply = match &self.write {
            Some(directory) => write(directory, svid, &jwk)?,
            None => Reply::new(
                json!({ "private_key": jwk.as_str(), "svid": messages::wit_svid(svid) }),
                format!("{}\n{}\n", shown(&svid.token), jwk.as_str()),
            ),
        };
        Ok(Reply { notes: self.shortfall(svid), ..reply })
    }

    /// What is to be known of a token that ends sooner than was asked for.
    fn shortfall(&self, svid: &Witsvid) -> String {
        if svid.expires_at.saturating_sub(svid.issued_at) >= i64::from(self.ttl) {
            return String::new();
        }
        format!("WIT-SVID lifetime was capped shorter than specified ttl; expires \"{}\"\n", utc(svid.expires_at))
    }
}

/// The key before the token: who sees the token finds its key.
fn write(directory: &Path, svid: &Witsvid, jwk: &str) -> Result<Reply, CommandError> {
    let (token_path, key_path) = (directory.join("token"), directory.join("key"));
    let put = |path: &Path, content: &str| {
        let failed = |source| CommandError::File { doing: "write", path: path.to_owned(), source };
        replace_file(path, content.as_bytes(), MODE).map_err(failed)
    };
    put(&key_path, jwk)?;
    put(&token_path, &svid.token)?;
    let [token, key] = [token_path, key_path].map(|path| path.display().to_string());
    let text = format!("WIT-SVID written to {token}\nPrivate key written to {key}\n");
    Ok(Reply::new(json!({ "paths": { "svid": token, "private_key": key } }), text))
}
