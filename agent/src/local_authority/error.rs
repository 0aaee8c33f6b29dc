//! Why there is no CA, or nothing was signed with it.

use ironroot_shell::command_line::code_name;
use thiserror::Error;
use tonic::{Code, Status};

use super::JournalError;
use crate::agent_key::KeyError;
use crate::server_answers::AnswerRefusal;

/// Why the agent has no CA of its own, or did not sign with it.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// No entry is for it.
    #[error(
        "local_authority is configured, but no entry below this agent has the one selector ironroot:local_authority; create it on the \
         server, with -downstream"
    )]
    NoEntry,
    /// The entry does not let the agent have a CA.
    #[error(
        "the server gives no CA to {0}: its entry with the selector ironroot:local_authority is not downstream; set that on the server \
         (entry update -downstream)"
    )]
    NotDownstream(String),
    /// The server's error.
    #[error("the server gives no CA: {}: {}", code_name(.0.code()), .0.message())]
    Server(Status),
    /// There is no SVID to ask with.
    #[error("the server gives no SVID of the entry with the selector ironroot:local_authority: {0}")]
    NoSvid(String),
    /// What it sent, or what was signed with it, is not what it must be.
    #[error("the certificate is refused")]
    Answer(#[from] AnswerRefusal),
    /// The key cannot be made, kept or used.
    #[error("the key of the agent's own CA cannot be used")]
    Key(#[from] KeyError),
    /// The key of a certificate is gone.
    #[error("the key of the agent's own CA is missing")]
    KeyMissing,
    /// The entry does not let the agent publish a key.
    #[error(
        "the server publishes no key of {0}: its entry with the selector ironroot:local_authority is not downstream; set that on the server \
         (entry update -downstream)"
    )]
    MayNotPublish(String),
    /// The server's error.
    #[error("the server does not publish this agent's key for JWT-SVIDs: {}: {}", code_name(.0.code()), .0.message())]
    NotPublished(Status),
    /// The answer to its publication, or the bundle, does not have it, or has it tainted.
    #[error("the key for JWT-SVIDs is not in the server's bundle, so it signs nothing")]
    NotInBundle,
    /// Whether it is in the bundle is not known.
    #[error("whether the key for JWT-SVIDs is in the server's bundle is not known: {0}")]
    NoBundle(String),
    /// The key is gone.
    #[error("the key for JWT-SVIDs is missing")]
    JwtKeyMissing,
    /// Nobody could verify it.
    #[error("the key for JWT-SVIDs has made something that is no signature of ECDSA on P-256")]
    Signature,
    /// See `TOKENS_OF_AN_ENTRY`.
    #[error("too many JWT-SVIDs of this entry were asked for since the server is away; later there are more")]
    TooOften,
    /// What was signed is not on the disk, so it is not handed out.
    #[error("what the agent's own CA signs cannot be noted, so it is not used")]
    Journal(#[from] JournalError),
    /// A field that a certificate cannot hold.
    #[error("a certificate cannot be composed")]
    Encoding(#[from] der::Error),
    /// It was forgotten meanwhile.
    #[error("the agent has no CA of its own")]
    NoAuthority,
    /// A fault of the program, or the end of the process.
    #[error("signing was interrupted")]
    Interrupted,
}

impl AuthorityError {
    /// What the server's answer to the request of `id` means.
    pub fn refused(status: Status, id: &str) -> Self {
        match status.code() {
            Code::PermissionDenied => Self::NotDownstream(id.to_owned()),
            _ => Self::Server(status),
        }
    }

    /// What the server's answer to the publication of `id`'s key means.
    pub fn unpublished(status: Status, id: &str) -> Self {
        match status.code() {
            Code::PermissionDenied => Self::MayNotPublish(id.to_owned()),
            _ => Self::NotPublished(status),
        }
    }
}
