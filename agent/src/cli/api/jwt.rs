//! `api fetch jwt` and `api validate jwt`.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use ironroot_api::pb::workload::{JwtBundlesResponse, JwtsvidResponse, ValidateJwtsvidResponse};
use ironroot_shell::command_line::{CommandError, Output, Reply, base64, block_on, shown};
use ironroot_shell::settings::parse_timeout;
use prost_types::value::Kind;
use serde_json::{Map, Value, json};

use crate::cli::connection::Connection;

/// Whole numbers up to this are shown without a fraction: a float holds them exactly.
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// Fetches JWT-SVIDs for this process's identities, and the bundles that verify them.
#[derive(Debug, Args)]
#[command(
    after_help = "A token is good for whoever holds it until it ends: hand it to its audience only, in the header
\"Authorization: Bearer\".

Example: ironroot-agent api fetch jwt -audience https://example.org
Example: ironroot-agent api fetch jwt -audience a,b -spiffeID spiffe://example.org/app -output json"
)]
pub(super) struct FetchJwt {
    #[command(flatten)]
    connection: Connection,
    /// For whom the token is; comma-separated, may be repeated
    #[arg(long, value_name = "AUDIENCE", value_delimiter = ',')]
    audience: Vec<String>,
    /// The identity to get a token for; without it, one for each
    #[arg(long = "spiffeID", value_name = "ID", default_value = "")]
    spiffe_id: String,
    /// Longest wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_timeout)]
    timeout: Duration,
    /// Form of the answer: pretty or json
    #[arg(long, alias = "format", value_name = "FORM", default_value = "pretty")]
    output: Output,
}

impl FetchJwt {
    pub(super) fn execute(self) -> ExitCode {
        Reply::print(&self.fetch(), self.output)
    }

    fn fetch(&self) -> Result<Reply, CommandError> {
        if self.audience.is_empty() {
            return Err(CommandError::Usage("audience must be specified".to_owned()));
        }
        let asked = self.connection.jwt_bundles_and_svids(&self.audience, &self.spiffe_id);
        let (bundles, svids) = block_on(in_time(self.timeout, asked))?;
        Ok(Reply::new(json!([svids_json(&svids), bundles_json(&bundles)]), described(&svids, &bundles)))
    }
}

/// Validates an SVID that this process was sent.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-agent api validate jwt -audience https://example.org -svid TOKEN")]
pub(in crate::cli) struct Validate {
    #[command(subcommand)]
    kind: ValidateKind,
}

#[derive(Debug, Subcommand)]
enum ValidateKind {
    Jwt(ValidateJwt),
}

impl Validate {
    pub(super) fn execute(self) -> ExitCode {
        let ValidateKind::Jwt(jwt) = self.kind;
        Reply::print(&jwt.validate(), jwt.output)
    }
}

/// Validates a JWT-SVID: by whom it was signed, for whom, until when.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-agent api validate jwt -audience https://example.org -svid TOKEN")]
struct ValidateJwt {
    #[command(flatten)]
    connection: Connection,
    /// For whom it must be
    #[arg(long, value_name = "AUDIENCE", default_value = "")]
    audience: String,
    /// The token
    #[arg(long, value_name = "TOKEN", default_value = "")]
    svid: String,
    /// Longest wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_timeout)]
    timeout: Duration,
    /// Form of the answer: pretty or json
    #[arg(long, alias = "format", value_name = "FORM", default_value = "pretty")]
    output: Output,
}

impl ValidateJwt {
    fn validate(&self) -> Result<Reply, CommandError> {
        for (value, name) in [(&self.audience, "audience"), (&self.svid, "svid")] {
            if value.is_empty() {
                return Err(CommandError::Usage(format!("{name} must be specified")));
            }
        }
        let answer = block_on(in_time(self.timeout, self.connection.validate(&self.audience, &self.svid)))?;
        let ValidateJwtsvidResponse { spiffe_id, claims } = answer;
        let claims = claims.map(|claims| object(&claims.fields)).unwrap_or_default();
        let text = format!("SVID is valid.\nSPIFFE ID : {}\nClaims    : {claims}\n", shown(&spiffe_id));
        Ok(Reply::new(json!({ "claims": claims, "spiffe_id": spiffe_id }), text))
    }
}

async fn in_time<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    tokio::time::timeout(timeout, answer).await.unwrap_or(Err(CommandError::Timeout(timeout)))
}

fn described(svids: &JwtsvidResponse, bundles: &JwtBundlesResponse) -> String {
    let mut text = String::new();
    let mut block = |what: &str, id: &str, value: &str| {
        writeln!(text, "{what}({}):\n\t{value}", shown(id)).expect("writing to a string cannot fail");
    };
    for svid in &svids.svids {
        block("token", &svid.spiffe_id, &shown(&svid.svid).into_string());
        if !svid.hint.is_empty() {
            block("hint", &svid.spiffe_id, &shown(&svid.hint).into_string());
        }
    }
    for (trust_domain, jwks) in &bundles.bundles {
        let jwks = String::from_utf8_lossy(jwks);
        // JSON may have lines, and none of its texts has one.
        match serde_json::from_str::<serde::de::IgnoredAny>(&jwks) {
            Ok(_) => block("bundle", trust_domain, &jwks),
            Err(_) => block("bundle", trust_domain, &shown(jwks).into_string()),
        }
    }
    text
}

fn svids_json(answer: &JwtsvidResponse) -> Value {
    let svids = answer.svids.iter();
    let svids = svids.map(|s| json!({ "spiffe_id": s.spiffe_id, "svid": s.svid, "hint": s.hint }));
    json!({ "svids": svids.collect::<Value>() })
}

fn bundles_json(answer: &JwtBundlesResponse) -> Value {
    let bundles = answer.bundles.iter().map(|(name, jwks)| (name.clone(), base64(jwks)));
    json!({ "bundles": bundles.collect::<Map<_, _>>() })
}

/// Claims in the JSON form of protocol buffers.
fn object<'a>(fields: impl IntoIterator<Item = (&'a String, &'a prost_types::Value)>) -> Value {
    fields.into_iter().map(|(name, field)| (name.clone(), value(field))).collect::<Map<_, _>>().into()
}

fn value(field: &prost_types::Value) -> Value {
    match &field.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => json!(value),
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() <= LARGEST_WHOLE => {
            json!(*number as i64)
        }
        Some(Kind::NumberValue(number)) => json!(number),
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::ListValue(list)) => list.values.iter().map(value).collect(),
        Some(Kind::StructValue(fields)) => object(&fields.fields),
    }
}
