//! `bundle`: the server's own, and those of other trust domains.

mod count;
mod delete;
mod file;
mod list;
mod set;

use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Subcommand};
use der::Decode;
use der::pem::{self, LineEnding};
use ironroot_api::bundle::document;
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::types;
use ironroot_api::spire_time;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::{CommandError, Reply};
use x509_cert::Certificate;

use super::connection::Connection;
use super::messages;

pub(super) use file::{BundleFile, parse};

#[derive(Debug, Subcommand)]
pub(super) enum Bundle {
    Show(Show),
    List(list::List),
    Set(set::Set),
    Delete(delete::Delete),
    Count(count::Count),
}

impl Bundle {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::Show(show) => show.execute(),
            Self::List(list) => list.execute(),
            Self::Set(set) => set.execute(),
            Self::Delete(delete) => delete.execute(),
            Self::Count(count) => count.execute(),
        }
    }
}

/// Prints the trust bundle: what an agent needs to recognise this server.
#[derive(Debug, Args)]
#[command(after_help = "Standard error says until when the bundle is valid.
Example: ironroot-server bundle show > bootstrap.pem
Example: ironroot-server bundle show -format spiffe > bundle.json")]
pub(super) struct Show {
    #[command(flatten)]
    connection: Connection,
    /// pem: certificates; spiffe: a SPIFFE bundle document (only with -output pretty)
    #[arg(long, value_name = "FORMAT", default_value = "pem")]
    format: Format,
}

/// How a bundle is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// Its X.509 authorities alone.
    #[default]
    Pem,
    /// A SPIFFE bundle document, JSON.
    Spiffe,
}

impl Format {
    /// The bundle in that form, with its line ends.
    fn write(self, bundle: &types::Bundle) -> Result<String, CommandError> {
        match self {
            Self::Pem => pem_of(bundle),
            Self::Spiffe => {
                let text =
                    document(bundle).map_err(|why| CommandError::Malformed(format!("{why}: use -format pem")))?;
                Ok(text + "\n")
            }
        }
    }
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "pem" => Ok(Self::Pem),
            "spiffe" => Ok(Self::Spiffe),
            _ => Err("use pem or spiffe"),
        }
    }
}

impl Show {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let mut client = BundleClient::new(connection.open().await?);
            let bundle = client.get_bundle(GetBundleRequest::default()).await?.into_inner();
            let text = self.format.write(&bundle)?;
            Ok(Reply { complaints: validity(&bundle, wall_unix())?, ..Reply::new(messages::bundle(&bundle), text) })
        })
    }
}

/// A bundle that ends sooner than this does not belong into an image without a word, seconds: a year.
const SHORT: i64 = 365 * 24 * 60 * 60;

/// Until when the bundle is good: until its last certificate ends. For standard error.
fn validity(bundle: &types::Bundle, now_unix: i64) -> Result<String, CommandError> {
    let end = |authority: &types::X509Certificate| {
        let certificate = Certificate::from_der(&authority.asn1).map_err(|error| malformed(&error))?;
        let end = certificate.tbs_certificate().validity().not_after.to_unix_duration().as_secs();
        Ok(i64::try_from(end).unwrap_or(i64::MAX))
    };
    let ends = bundle.x509_authorities.iter().map(end).collect::<Result<Vec<_>, CommandError>>()?;
    let Some(last) = ends.into_iter().max() else { return Ok("the bundle is empty\n".to_owned()) };
    let until = spire_time(last);
    Ok(match last.saturating_sub(now_unix) < SHORT {
        false => format!("valid until {until}\n"),
        true => format!(
            "valid until {until}, and no longer: it holds no certificate that lives for a year. A device whose image has only this \
             bundle, or that is off for longer, cannot come back. See \"The root\" in the handbook.\n"
        ),
    })
}

fn pem_of(bundle: &types::Bundle) -> Result<String, CommandError> {
    let encode = |authority: &types::X509Certificate| {
        pem::encode_string("CERTIFICATE", LineEnding::LF, &authority.asn1).map_err(|error| malformed(&error))
    };
    bundle.x509_authorities.iter().map(encode).collect()
}

fn malformed(error: &dyn std::fmt::Display) -> CommandError {
    CommandError::Malformed(format!("the server's bundle cannot be read: {error}"))
}
