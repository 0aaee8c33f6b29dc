//! Join tokens that nobody has used yet.

use std::collections::HashSet;
use std::fmt;

use super::plan::Rules;
use super::report::{Report, What};
use crate::store::spire::SpireToken;

/// A token and when it ends, UNIX seconds.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) token: String,
    pub(super) expires_at: i64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(until {})", self.expires_at)
    }
}

/// Those that are good still. A token is a secret: the report tells its place and not its text.
pub(super) fn taken(found: Vec<SpireToken>, rules: &Rules, now_unix: i64, report: &mut Report) -> Vec<Token> {
    let (mut taken, mut seen) = (Vec::new(), HashSet::new());
    for (number, SpireToken { token, expiry }) in found.into_iter().enumerate() {
        let name = format!("number {}", number + 1);
        let names_an_agent = rules.trust_domain.id_with_path(&format!("/spire/agent/join_token/{token}")).is_ok();
        if expiry <= now_unix {
            report.leave(What::JoinToken, name, "it has expired");
        } else if !names_an_agent || token.contains('/') || token.is_empty() {
            report.leave(What::JoinToken, name, "it has characters that no agent's ID can have");
        } else if !seen.insert(token.clone()) {
            report.leave(What::JoinToken, name, "it is there twice");
        } else {
            taken.push(Token { token, expires_at: expiry });
        }
    }
    taken
}
