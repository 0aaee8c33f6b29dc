//! Join tokens: secrets that let one agent attest, once.

use super::{Facts, SLICE, Transaction};
use crate::store::{ShownToken, StoreError};

impl Facts<'_> {
    /// What a token is worth at that time.
    pub fn join_token(&self, token: &str, now_unix: i64) -> Result<ShownToken, StoreError> {
        let expiry = "SELECT expires_at FROM join_tokens WHERE token = ?1";
        let expires_at: Option<i64> = self.sql.first(expiry, &[&token], |row| row.get(0))?;
        Ok(match expires_at {
            None => ShownToken::Unknown,
            Some(expires_at) if expires_at <= now_unix => ShownToken::Expired,
            Some(_) => ShownToken::Good,
        })
    }
}

impl Transaction<'_> {
    /// Adds a token; false if there is one of that value.
    pub fn add_join_token(&self, token: &str, expires_at: i64) -> Result<bool, StoreError> {
        let add = "INSERT INTO join_tokens (token, expires_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        Ok(self.sql.execute(add, &[&token, &expires_at])? == 1)
    }

    /// Removes a token that is good at that time. One that has expired stays, so that it is forgotten with its alias.
    pub fn spend_join_token(&self, token: &str, now_unix: i64) -> Result<ShownToken, StoreError> {
        let shown = self.join_token(token, now_unix)?;
        if shown == ShownToken::Good {
            //= FLT-S2 server faults: "the token is used up"
            //= FLT-S3 server faults: "exactly one wins"
            self.sql.execute("DELETE FROM join_tokens WHERE token = ?1", &[&token])?;
        }
        Ok(shown)
    }

    /// Removes tokens that expired unused, a slice at most; returns them.
    pub fn remove_join_tokens_expired_at(&self, now_unix: i64) -> Result<Vec<String>, StoreError> {
        let remove = "DELETE FROM join_tokens
                      WHERE token IN (SELECT token FROM join_tokens WHERE expires_at <= ?1 LIMIT ?2) RETURNING token";
        self.sql.all(remove, &[&now_unix, &SLICE], |row| row.get(0))
    }
}
