//! Who may sign, with their keys at hand: X509-SVIDs, JWT-SVIDs and WIT-SVIDs.

use std::sync::Arc;

use super::CaError;
use super::issuer::Issuer;
use super::journal::Authority;
use super::jwt::{JwtError, TokenSigner};

/// Who may sign, in the order in which they are asked.
#[derive(Clone, Default)]
pub(super) struct Signers {
    x509: Vec<Arc<Issuer>>,
    jwt: Vec<Arc<TokenSigner>>,
    wit: Vec<Arc<TokenSigner>>,
}

impl Signers {
    pub(super) fn new(x509: Vec<Arc<Issuer>>, jwt: Vec<Arc<TokenSigner>>, wit: Vec<Arc<TokenSigner>>) -> Self {
        Self { x509, jwt, wit }
    }

    /// The CA that this authority is.
    pub(super) fn of(&self, authority: &Authority) -> Option<Arc<Issuer>> {
        self.x509.iter().find(|issuer| issuer.is_of(authority)).cloned()
    }

    /// The key for tokens that this authority is.
    pub(super) fn token_of(&self, authority: &Authority) -> Option<Arc<TokenSigner>> {
        self.jwt.iter().chain(&self.wit).find(|signer| signer.is_of(authority)).cloned()
    }

    /// Whether there is no CA.
    pub(super) fn is_empty(&self) -> bool {
        self.x509.is_empty()
    }

    /// The first CA that is valid now; if none is, the first, whose refusal says why.
    pub(super) fn at(&self, now_unix: i64) -> Result<Arc<Issuer>, CaError> {
        let valid = self.x509.iter().find(|issuer| issuer.is_valid(now_unix));
        valid.or(self.x509.first()).cloned().ok_or(CaError::NothingSigns)
    }

    /// The first key for JWT-SVIDs that is valid now; if none is, why the first is not.
    pub(super) fn jwt_at(&self, now_unix: i64) -> Result<Arc<TokenSigner>, JwtError> {
        first_of(&self.jwt, now_unix)
    }

    /// The same, for WIT-SVIDs.
    pub(super) fn wit_at(&self, now_unix: i64) -> Result<Arc<TokenSigner>, JwtError> {
        first_of(&self.wit, now_unix)
    }

    /// Why no CA may sign now; none if one may.
    pub(super) fn trouble(&self, now_unix: i64) -> Option<CaError> {
        match self.at(now_unix) {
            Ok(issuer) => issuer.trouble(now_unix),
            Err(error) => Some(error),
        }
    }
}

fn first_of(signers: &[Arc<TokenSigner>], now_unix: i64) -> Result<Arc<TokenSigner>, JwtError> {
    let valid = signers.iter().find(|signer| signer.check(now_unix).is_ok());
    let signer = valid.or(signers.first()).ok_or(JwtError::NoKey)?;
    signer.check(now_unix).map(|()| Arc::clone(signer))
}
