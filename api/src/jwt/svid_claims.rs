//! What a JWT-SVID says that is composed here. Pure: time and randomness are arguments.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::SpiffeId;

/// The claims of a JWT-SVID, in the order in which SPIRE writes them; times are whole UNIX seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SvidClaims {
    aud: Vec<String>,
    /// When it ends.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    //= JWT-05 JWT-SVID 3.1: "MUST be set to the SPIFFE ID of the workload to which it is issued"
    sub: String,
}

impl SvidClaims {
    /// For `id`, by `issuer` if it has a name. `span`: when the token is made and when it ends. `token_id`: random, if the token is to have an
    /// ID of its own.
    pub fn new(
        id: &SpiffeId,
        audience: &[String],
        issuer: Option<&str>,
        (iat, exp): (i64, i64),
        token_id: Option<[u8; 16]>,
    ) -> Self {
        Self {
            aud: audience.to_vec(),
            exp,
            iat,
            iss: issuer.map(str::to_owned),
            jti: token_id.map(|id| URL_SAFE_NO_PAD.encode(id)),
            sub: id.as_str().to_owned(),
        }
    }

    /// The same, ending by then at the latest, UNIX seconds.
    pub fn ending_by(self, not_after_unix: i64) -> Self {
        Self { exp: self.exp.min(not_after_unix), ..self }
    }
}
