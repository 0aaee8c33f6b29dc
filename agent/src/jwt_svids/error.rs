//! Why there is no JWT-SVID.

use ironroot_api::jwt::JwtRefusal;
use ironroot_shell::command_line::code_name;
use thiserror::Error;
use tonic::{Code, Status};

/// One reason each; for whoever asked, so nothing of it is secret. Where SPIRE has words for it, these are its words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum FetchError {
    /// The agent knows that it cannot reach its server, or that it may not.
    #[error("the server cannot be reached")]
    ServerAway,
    /// Nor does this agent sign by itself.
    #[error("the server cannot be reached, and this agent signs none itself: {0}")]
    Local(String),
    /// The server's own refusal.
    #[error("failed to fetch JWT SVID: rpc error: code = {} desc = {message}", code_name(*code))]
    Server { code: Code, message: String },
    /// The server signed something that is not used.
    #[error("the server's JWT-SVID is refused: {0}")]
    Token(#[from] JwtRefusal),
    /// It is for another ID or another audience, or lasts for no time.
    #[error("the server's JWT-SVID has another {0} than it was asked for")]
    Other(&'static str),
    /// Too many calls are under way.
    #[error("too many JWT-SVIDs are being asked for")]
    Busy,
    /// The server takes long.
    #[error("the server did not answer in time")]
    Late,
    /// Something went wrong inside this agent.
    #[error("the call was given up")]
    GivenUp,
}

impl FetchError {
    /// Whether nobody was there to sign: another server may be.
    pub fn is_of_a_server_away(&self) -> bool {
        matches!(self, Self::ServerAway | Self::Local(_) | Self::Late | Self::Server { code: Code::Unavailable, .. })
    }
}

impl From<Status> for FetchError {
    fn from(status: Status) -> Self {
        Self::Server { code: status.code(), message: status.message().chars().take(500).collect() }
    }
}
