//! Join tokens: secrets that let one agent attest, once.

use super::Transaction;
use crate::store::{ShownToken, StoreError};

impl Transaction<'_> {
    /// Adds a token; false if there is one of that value.
    pub fn add_join_token(&self, token: &str, expires_at: i64) -> Result<bool, StoreError> {
        let add = "INSERT INTO join_tokens (token, expires_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        Ok(self.connection.prepare_cached(add)?.execute((token, expires_at))? == 1)
    }

    /// Removes a token that is good at that time. One that has expired stays, so that it is forgotten with its alias.
    pub fn take_join_token(&self, token: &str, now_unix: i64) -> Result<ShownToken, StoreError> {
        //= FLT-S2 server faults: "the token is used up"
        let take = "DELETE FROM join_tokens WHERE token = ?1 AND expires_at > ?2";
        //= FLT-S3 server faults: "exactly one wins"
        if self.connection.prepare_cached(take)?.execute((token, now_unix))? == 1 {
            return Ok(ShownToken::Taken);
        }
        let mut expired = self.connection.prepare_cached("SELECT 1 FROM join_tokens WHERE token = ?1")?;
        Ok(if expired.exists([token])? { ShownToken::Expired } else { ShownToken::Unknown })
    }

    /// Removes the tokens that expired unused; returns them.
    pub fn remove_join_tokens_expired_at(&self, now_unix: i64) -> Result<Vec<String>, StoreError> {
        let mut remove =
            self.connection.prepare_cached("DELETE FROM join_tokens WHERE expires_at <= ?1 RETURNING token")?;
        let tokens = remove.query_map([now_unix], |row| row.get(0))?;
        Ok(tokens.collect::<Result<_, _>>()?)
    }
}
