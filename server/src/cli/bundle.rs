//! `bundle show`.

use std::process::ExitCode;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::{Args, Subcommand};
use const_oid::db::rfc5912::{ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1};
use der::asn1::{ObjectIdentifier, UintRef};
use der::pem::{self, LineEnding};
use der::{Decode, Sequence};
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::types;
use ironroot_api::spire_time;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::{CommandError, Reply};
use serde_json::{Map, Value, json};
use x509_cert::Certificate;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::connection::Connection;
use super::messages;

#[derive(Debug, Subcommand)]
pub(super) enum Bundle {
    Show(Show),
}

impl Bundle {
    pub(super) fn execute(self) -> ExitCode {
        let Self::Show(show) = self;
        show.execute()
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Pem,
    Spiffe,
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
            let text = match self.format {
                Format::Pem => pem_of(&bundle)?,
                Format::Spiffe => format!("{:#}\n", document(&bundle)?),
            };
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

/// A SPIFFE bundle: a JWK set. Source: SPIFFE Trust Domain and Bundle §4; SPIFFE X509-SVID §6.
fn document(bundle: &types::Bundle) -> Result<Value, CommandError> {
    let x509 = bundle.x509_authorities.iter().map(|authority| x509_jwk(&authority.asn1));
    let jwt = bundle.jwt_authorities.iter().map(|key| jwt_jwk(&key.public_key, &key.key_id));
    let keys: Vec<Value> = x509.chain(jwt).collect::<Result<_, _>>()?;
    let mut document = Map::from_iter([("keys".to_owned(), Value::from(keys))]);
    if bundle.sequence_number > 0 {
        document.insert("spiffe_sequence".to_owned(), bundle.sequence_number.into());
    }
    if bundle.refresh_hint > 0 {
        //= TDB-03 SPIFFE Trust Domain and Bundle 4.1.2: "its value MUST be an integer"
        document.insert("spiffe_refresh_hint".to_owned(), bundle.refresh_hint.into());
    }
    Ok(Value::Object(document))
}

fn x509_jwk(der: &[u8]) -> Result<Value, CommandError> {
    let certificate = Certificate::from_der(der).map_err(|error| malformed(&error))?;
    let mut jwk = jwk(certificate.tbs_certificate().subject_public_key_info())?;
    //= X509-16 X509-SVID 6.1: "the `kid` parameter of each JWK entry MUST NOT be set"
    jwk.insert("use".to_owned(), "x509-svid".into());
    jwk.insert("x5c".to_owned(), json!([STANDARD.encode(der)]));
    Ok(Value::Object(jwk))
}

fn jwt_jwk(spki: &[u8], key_id: &str) -> Result<Value, CommandError> {
    let spki = SubjectPublicKeyInfoOwned::from_der(spki).map_err(|error| malformed(&error))?;
    let mut jwk = jwk(&spki)?;
    //= JWT-09 JWT-SVID 6.1: "the `kid` parameter of each JWK entry MUST be set"
    jwk.insert("use".to_owned(), "jwt-svid".into());
    jwk.insert("kid".to_owned(), key_id.into());
    Ok(Value::Object(jwk))
}

/// Parameters of a key.
fn jwk(spki: &SubjectPublicKeyInfoOwned) -> Result<Map<String, Value>, CommandError> {
    if spki.algorithm.oid == RSA_ENCRYPTION { rsa_jwk(spki) } else { ec_jwk(spki) }
}

/// Source: RFC 7518 §6.3.1.
fn rsa_jwk(spki: &SubjectPublicKeyInfoOwned) -> Result<Map<String, Value>, CommandError> {
    #[derive(Sequence)]
    struct RsaPublicKey<'a> {
        modulus: UintRef<'a>,
        exponent: UintRef<'a>,
    }
    let key = RsaPublicKey::from_der(spki.subject_public_key.raw_bytes()).map_err(|error| malformed(&error))?;
    let text = |number: UintRef<'_>| Value::from(URL_SAFE_NO_PAD.encode(number.as_bytes()));
    let fields = [("kty", "RSA".into()), ("n", text(key.modulus)), ("e", text(key.exponent))];
    Ok(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Source: RFC 7518 §6.2.1.
fn ec_jwk(spki: &SubjectPublicKeyInfoOwned) -> Result<Map<String, Value>, CommandError> {
    let unsupported =
        || CommandError::Malformed("the bundle has a key that is not P-256, P-384 or RSA: use -format pem".to_owned());
    let curve = spki.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    let (name, size) = match curve {
        Some(SECP_256_R_1) if spki.algorithm.oid == ID_EC_PUBLIC_KEY => ("P-256", 32),
        Some(SECP_384_R_1) if spki.algorithm.oid == ID_EC_PUBLIC_KEY => ("P-384", 48),
        _ => return Err(unsupported()),
    };
    let point = spki.subject_public_key.raw_bytes();
    let (Some((&4, point)), true) = (point.split_first(), point.len() == 2 * size + 1) else {
        return Err(unsupported());
    };
    let (x, y) = point.split_at(size);
    let text = |coordinate: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(coordinate));
    let fields = [("kty", "EC".into()), ("crv", name.into()), ("x", text(x)), ("y", text(y))];
    Ok(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn malformed(error: &dyn std::fmt::Display) -> CommandError {
    CommandError::Malformed(format!("the server's bundle cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    //= JWT-09
    #[test]
    fn a_jwt_key_has_its_use_and_its_id_and_an_x509_key_has_no_id() {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::default().self_signed(&key).expect("signs");
        let bundle = types::Bundle {
            x509_authorities: vec![types::X509Certificate {
                asn1: certificate.der().to_vec().into(),
                ..Default::default()
            }],
            jwt_authorities: vec![types::JwtKey {
                public_key: key.subject_public_key_info().into(),
                key_id: "key of 2027".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let document = document(&bundle).expect("P-256 keys");
        let (x509, jwt) = (&document["keys"][0], &document["keys"][1]);
        assert_eq!((&x509["use"], x509.get("kid")), (&"x509-svid".into(), None));
        assert_eq!((&jwt["use"], &jwt["kid"]), (&"jwt-svid".into(), &"key of 2027".into()));
        assert_eq!((&jwt["kty"], &jwt["crv"], &jwt["x"]), (&"EC".into(), &"P-256".into(), &x509["x"]));
        assert_eq!(jwt.get("x5c"), None);
    }
}
