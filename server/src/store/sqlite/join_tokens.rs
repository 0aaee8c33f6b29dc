//! Join tokens: secrets that let one agent attest, once.

use rusqlite::OptionalExtension;

use super::{Facts, Transaction};
use crate::store::{ShownToken, StoreError};

impl Facts<'_> {
    /// What a token is worth at that time.
    pub fn join_token(&self, token: &str, now_unix: i64) -> Result<ShownToken, StoreError> {
        let mut expiry = self.connection.prepare_cached("SELECT expires_at FROM join_tokens WHERE token = ?1")?;
        let expires_at: Option<i64> = expiry.query_row([token], |row| row.get(0)).optional()?;
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
        Ok(self.connection.prepare_cached(add)?.execute((token, expires_at))? == 1)
    }

    /// Removes a token that is good at that time. One that has expired stays, so that it is forgotten with its alias.
    pub fn spend_join_token(&self, token: &str, now_unix: i64) -> Result<ShownToken, StoreError> {
        let shown = self.join_token(token, now_unix)?;
        if shown == ShownToken::Good {
            //= FLT-S2 server faults: "the token is used up"
            //= FLT-S3 server faults: "exactly one wins"
            self.connection.prepare_cached("DELETE FROM join_tokens WHERE token = ?1")?.execute([token])?;
        }
        Ok(shown)
    }

    /// Removes the tokens that expired unused; returns them.
    pub fn remove_join_tokens_expired_at(&self, now_unix: i64) -> Result<Vec<String>, StoreError> {
        let mut remove =
            self.connection.prepare_cached("DELETE FROM join_tokens WHERE expires_at <= ?1 RETURNING token")?;
        let tokens = remove.query_map([now_unix], |row| row.get(0))?;
        Ok(tokens.collect::<Result<_, _>>()?)
    }
}
