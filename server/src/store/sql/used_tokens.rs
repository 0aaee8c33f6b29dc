//! Tokens of other issuers, used up until they end.

use super::Transaction;
use crate::store::{REMEMBERED_AFTER_END, StoreError, TokenUse};

impl Transaction<'_> {
    /// Uses up a token that ends then; of those whose hashes begin with the same byte `most` are remembered: to count them all would
    /// cost milliseconds each time. Tokens that ended long enough ago are forgotten, whichever server's clock says so.
    pub fn use_up_token(
        &self,
        token: &[u8; 32],
        ends_at: i64,
        now_unix: i64,
        most: usize,
    ) -> Result<TokenUse, StoreError> {
        let long_over = now_unix.saturating_sub(REMEMBERED_AFTER_END);
        self.sql.execute("DELETE FROM used_tokens WHERE ends_at <= ?1", &[&long_over])?;
        let add = "INSERT INTO used_tokens (token, ends_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        if self.sql.execute(add, &[token, &ends_at])? == 0 {
            return Ok(TokenUse::Again);
        }
        let (mut first, mut last) = ([0; 32], [u8::MAX; 32]);
        (first[0], last[0]) = (token[0], token[0]);
        let count = "SELECT count(*) FROM used_tokens WHERE token BETWEEN ?1 AND ?2";
        let held: i64 = self.sql.one(count, &[&first, &last], |row| row.get(0))?;
        if usize::try_from(held).is_ok_and(|held| held <= most) {
            return Ok(TokenUse::First);
        }
        self.give_back_token(token)?;
        Ok(TokenUse::NoRoom)
    }

    /// The token may be used again: nothing was issued for it.
    pub fn give_back_token(&self, token: &[u8; 32]) -> Result<(), StoreError> {
        self.sql.execute("DELETE FROM used_tokens WHERE token = ?1", &[token])?;
        Ok(())
    }
}
