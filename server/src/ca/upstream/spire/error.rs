//! Why the server above does not answer as it should.

use std::path::PathBuf;

use ironroot_api::certificate::CertificateError;
use ironroot_api::unix_socket::UnixSocketError;
use ironroot_api::{SpiffeId, TrustDomain};
use thiserror::Error;
use tonic::{Code, Status};

use super::DEADLINE;

/// Why the server above does not answer as it should.
#[derive(Debug, Error)]
pub enum SpireError {
    /// Nobody is at the socket of the Workload API.
    #[error("cannot get this server's SVID: workload_api_socket names no agent that runs")]
    WorkloadApi(#[source] UnixSocketError),
    /// The agent there gives this server no SVID.
    #[error(
        "the agent at {0} gives this server no SVID: create an entry there with -downstream and with selectors that this process has"
    )]
    NoIdentity(PathBuf, #[source] Status),
    /// The agent has sent what is no SVID with its key.
    #[error("the agent at {0} has sent no usable SVID")]
    Identity(PathBuf, #[source] IdentityError),
    /// Another trust domain's.
    #[error(
        "the agent's SVID for this server is {found}, which is not of trust domain {expected}: tiers are of one trust domain"
    )]
    OtherTrustDomain {
        /// The ID that it has.
        found: SpiffeId,
        /// This server's.
        expected: TrustDomain,
    },
    /// Name resolution, TCP or TLS failed, or somebody else answered.
    #[error("cannot reach the upstream server at {0}")]
    Connect(String, #[source] tonic::transport::Error),
    /// It does not do what it was asked for.
    #[error("{}", if .0.code() == tonic::Code::Unavailable { "the upstream server does not answer" } else { "the upstream server refuses" })]
    Refused(#[source] Status),
    /// One of these, in the middle of something.
    #[error("{what}")]
    During {
        /// What it was.
        what: &'static str,
        /// What went wrong.
        #[source]
        why: Box<Self>,
    },
    /// It did not come to an end.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Late,
    /// The bundle of another trust domain.
    #[error("the upstream server's bundle is of trust domain {0:?}")]
    OtherBundle(String),
    /// A certificate of its bundle is none of an authority.
    #[error("the upstream server's bundle has a certificate that is no authority's")]
    NotAnAuthority,
}

/// What is wrong with an SVID.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// There is none in the message, or the agent has ended the call.
    #[error("it has sent none")]
    Missing,
    /// Its certificates.
    #[error("its certificates do not parse")]
    Certificate(#[from] CertificateError),
    /// Its key.
    #[error("its key does not fit its certificate")]
    Key(#[source] rustls::Error),
}

impl SpireError {
    /// Whether the server above does not offer what it was asked for.
    pub(super) fn is_unimplemented(&self) -> bool {
        self.code() == Some(Code::Unimplemented)
    }

    /// Whether it does not do this one thing, so that it may do the next one on the same connection.
    pub(super) fn is_refusal(&self) -> bool {
        self.has_no_room()
            || matches!(self.code(), Some(Code::InvalidArgument | Code::FailedPrecondition | Code::AlreadyExists))
    }

    /// Whether it has as much as it takes: the next one is refused as this one.
    pub(super) fn has_no_room(&self) -> bool {
        self.code() == Some(Code::ResourceExhausted)
    }

    fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(status) => Some(status.code()),
            Self::During { why, .. } => why.code(),
            _ => None,
        }
    }

    /// The same, in the middle of that.
    pub(super) fn at(self, what: &'static str) -> Self {
        Self::During { what, why: Box::new(self) }
    }
}
