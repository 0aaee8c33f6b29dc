//! `x509 mint`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use der::pem::{self, LineEnding};
use ironroot_api::SpiffeId;
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::svid::MintX509svidRequest;
use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::utc;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::{CommandError, Reply, base64, lifetime_seconds, replace_file};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use serde_json::json;
use zeroize::Zeroizing;

use super::connection::Connection;

/// Modes of what is written: a key is its owner's, certificates are everybody's. Source: SPIRE.
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

#[derive(Debug, Subcommand)]
pub(super) enum X509 {
    Mint(Mint),
}

impl X509 {
    pub(super) fn execute(self) -> ExitCode {
        let Self::Mint(mint) = self;
        mint.execute()
    }
}

/// Makes a key here and has the server sign an SVID for it, with any ID of a workload: no entry is asked.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints the SVID, its private key and the trust bundle; with -write they become svid.pem, key.pem (mode 0600) \
        and bundle.pem. Nobody renews such an SVID, and no entry says who has it: prefer an entry where an agent runs.

Example: ironroot-server x509 mint -spiffeID spiffe://example.org/web -dns web.example.org -ttl 1h -write ."
)]
pub(super) struct Mint {
    #[command(flatten)]
    connection: Connection,
    /// SPIFFE ID of the SVID
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<SpiffeId>,
    /// How long it lives, in seconds or as 24h; the server's default if not given
    #[arg(long, value_name = "TIME", default_value = "0", allow_negative_numbers = true, value_parser = lifetime_seconds)]
    ttl: i32,
    /// A DNS name for the SVID; may be given several times
    #[arg(long = "dns", value_name = "NAME")]
    dns_names: Vec<String>,
    /// Writes files into this directory and prints their names
    #[arg(long, value_name = "DIRECTORY")]
    write: Option<PathBuf>,
}

/// What was minted, DER.
struct Minted {
    chain: Vec<Vec<u8>>,
    /// PKCS#8.
    key: Zeroizing<Vec<u8>>,
    roots: Vec<Vec<u8>>,
    expires_at: i64,
}

impl Mint {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let minted = self.minted(connection).await?;
            let notes = self.cut_short(&minted);
            Ok(match &self.write {
                Some(directory) => Reply { notes, ..minted.write(directory)? },
                None => Reply { notes, ..minted.reply()? },
            })
        })
    }

    async fn minted(&self, connection: &Connection) -> Result<Minted, CommandError> {
        let key = KeyPair::generate().map_err(CommandError::run)?;
        let csr = self.request(&key)?.into();
        let channel = connection.open().await?;
        let request = MintX509svidRequest { csr, ttl: self.ttl };
        let answer = SvidClient::new(channel.clone()).mint_x509svid(request).await?.into_inner();
        let bundle = BundleClient::new(channel).get_bundle(GetBundleRequest::default()).await?.into_inner();
        let svid = answer.svid.filter(|svid| !svid.cert_chain.is_empty());
        let svid = svid.ok_or_else(|| CommandError::Malformed("server response missing SVID chain".to_owned()))?;
        Ok(Minted {
            chain: svid.cert_chain.iter().map(|der| der.to_vec()).collect(),
            key: Zeroizing::new(key.serialize_der()),
            roots: bundle.x509_authorities.iter().map(|authority| authority.asn1.to_vec()).collect(),
            expires_at: svid.expires_at,
        })
    }

    /// The key's request for the ID and the names.
    fn request(&self, key: &KeyPair) -> Result<Vec<u8>, CommandError> {
        let no_name = |name: &str| CommandError::Usage(format!("-dns {name:?} is no DNS name"));
        let dns = |name: &String| name.as_str().try_into().map(SanType::DnsName).map_err(|_| no_name(name));
        let mut names = self.dns_names.iter().map(dns).collect::<Result<Vec<_>, _>>()?;
        let id = self.spiffe_id.as_ref();
        let id = id.ok_or_else(|| CommandError::Usage("spiffeID must be specified".to_owned()))?;
        let uri = id.as_str().try_into().map_err(|error: rcgen::Error| CommandError::run(error))?;
        names.push(SanType::URI(uri));
        let mut params = CertificateParams::default();
        (params.subject_alt_names, params.distinguished_name) = (names, DistinguishedName::new());
        let request = params.serialize_request(key).map_err(CommandError::run)?;
        Ok(request.der().to_vec())
    }

    /// A life that is shorter than was asked for, by a second or so on the way.
    fn cut_short(&self, minted: &Minted) -> String {
        const ON_THE_WAY: i64 = 5;
        match minted.expires_at.saturating_sub(wall_unix()) + ON_THE_WAY < i64::from(self.ttl) {
            true => format!(
                "X509-SVID lifetime was capped shorter than specified ttl; expires \"{}\"\n",
                utc(minted.expires_at)
            ),
            false => String::new(),
        }
    }
}

impl Minted {
    fn pem(&self) -> Result<[Zeroizing<String>; 3], CommandError> {
        let all = |ders: &[Vec<u8>]| ders.iter().map(|der| encode("CERTIFICATE", der)).collect::<Result<String, _>>();
        let key = Zeroizing::new(encode("PRIVATE KEY", &self.key)?);
        Ok([Zeroizing::new(all(&self.chain)?), key, Zeroizing::new(all(&self.roots)?)])
    }

    fn reply(&self) -> Result<Reply, CommandError> {
        let [svid, key, roots] = self.pem()?;
        let text =
            format!("X509-SVID:\n{}\nPrivate key:\n{}\nRoot CAs:\n{}\n", svid.as_str(), key.as_str(), roots.as_str());
        let all = |ders: &[Vec<u8>]| ders.iter().map(|der| base64(der)).collect::<Vec<_>>();
        let json = json!({
            "x509_svid": all(&self.chain),
            "private_key": base64(&self.key),
            "root_cas": all(&self.roots),
        });
        Ok(Reply::new(json, text))
    }

    /// The key before the certificate: who sees the certificate finds its key.
    fn write(&self, directory: &Path) -> Result<Reply, CommandError> {
        let [svid, key, roots] = self.pem()?;
        let path = |name: &str| directory.join(name);
        let put = |name: &str, content: &str, mode| {
            let failed = |source| CommandError::File { doing: "write", path: path(name), source };
            replace_file(&path(name), content.as_bytes(), mode).map_err(failed)
        };
        put("key.pem", &key, KEY_MODE)?;
        put("svid.pem", &svid, CERTIFICATE_MODE)?;
        put("bundle.pem", &roots, CERTIFICATE_MODE)?;
        let [svid, key, roots] = ["svid.pem", "key.pem", "bundle.pem"].map(|name| path(name).display().to_string());
        let text = format!("X509-SVID written to {svid}\nPrivate key written to {key}\nRoot CAs written to {roots}\n");
        Ok(Reply::new(json!({ "paths": { "x509_svid": svid, "private_key": key, "root_cas": roots } }), text))
    }
}

fn encode(label: &'static str, der: &[u8]) -> Result<String, CommandError> {
    let wrong = |error| CommandError::Malformed(format!("the server's answer cannot be written as PEM: {error}"));
    pem::encode_string(label, LineEnding::LF, der).map_err(wrong)
}
