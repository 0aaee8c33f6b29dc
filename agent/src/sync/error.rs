//! Why a turn of the loop failed, and what the server wants done about it.

use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::denial_reason;
use ironroot_shell::command_line::code_name;
use thiserror::Error;
use tonic::{Code, Status};

use crate::agent_key::KeyError;
use crate::bundle_source::BundleSourceError;
use crate::node_attestation::AttestationError;
use crate::server_answers::AnswerRefusal;
use crate::server_channel::ChannelError;

/// Why a turn failed. None of these ends the agent.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum SyncError {
    /// No connection, or one to somebody else.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The server's error.
    #[error("a call to the server failed: {}: {}", code_name(.0.code()), .0.message())]
    Server(#[from] Status),
    /// Attestation failed.
    #[error("cannot attest")]
    Attestation(#[from] AttestationError),
    /// The configured bundle proves another server than the one that the agent was let in by, and that one does not let it in (yet). It
    /// has no say in what the agent holds, but for a ban.
    #[error("the server that the configured trust bundle proves does not let this agent in")]
    NotLetIn(#[source] AttestationError),
    /// The answer is not used.
    #[error("the server's answer is refused")]
    Answer(#[from] AnswerRefusal),
    /// The agent's key cannot be made, kept or used.
    #[error("the agent's key cannot be used")]
    Key(#[from] KeyError),
    /// The configured trust bundle cannot be used.
    #[error("there is no way to know the server: {from}")]
    Bootstrap {
        from: String,
        /// Whether it is not there, no bundle, or without a usable authority.
        #[source]
        source: Box<BundleSourceError>,
    },
    /// No bundle to verify anything against.
    #[error("there is no trust bundle")]
    NoBundle,
    /// No certificate to show.
    #[error("there is no agent certificate")]
    NoCertificate,
}

/// How SPIRE's server answers the attestation of an agent that it bans: other than at each other call, without a reason for programs.
/// Source: pkg/server/api/agent/v1/service.go, AttestAgent.
const BANNED_AT_SPIRES: &str = "failed to attest: agent is banned";

/// What a PermissionDenied asks of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Attest again: the certificate expired or was superseded.
    Reattest,
    /// Attest again: the server does not know this agent, or not any more. If that cannot be done, it was evicted.
    NotAttested,
    /// Stop serving.
    Banned,
}

impl SyncError {
    /// Why an attestation failed at a server that only the configured bundle proves.
    pub(super) fn of_a_placed_server(error: AttestationError) -> Self {
        let error = Self::Attestation(error);
        let is_banned = error.denial() == Some(Denial::Banned);
        match error {
            Self::Attestation(error @ AttestationError::Server(_)) if !is_banned => Self::NotLetIn(error),
            error => error,
        }
    }

    /// Whether the server's certificate has ended by this device's time, and nothing else is wrong with it.
    pub fn is_doubt(&self) -> bool {
        matches!(self, Self::Channel(error) if error.is_doubt())
    }

    /// Whether whoever answered is not the server, by all that the agent knows: with no certificate that its bundle proves.
    pub fn is_disbelief(&self) -> bool {
        matches!(self, Self::Channel(ChannelError::Refused(_))) && !self.is_doubt()
    }

    /// Whether the server ended the handshake over this agent's certificate: by its clock, or its bundle, it is not valid.
    pub fn is_certificate_refused(&self) -> bool {
        let alert = |error: &rustls::Error| {
            use rustls::AlertDescription as Alert;
            let rustls::Error::AlertReceived(alert) = error else { return false };
            matches!(
                alert,
                Alert::BadCertificate | Alert::CertificateExpired | Alert::CertificateUnknown | Alert::UnknownCA
            )
        };
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            let inside = inside.and_then(|inside| inside.downcast_ref());
            if error.downcast_ref().or(inside).is_some_and(alert) {
                return true;
            }
            next = error.source();
        }
        false
    }

    /// Whether the server is not there, as far as can be told: nobody answers, or somebody who is not believed, or who says that he cannot.
    /// A server that does not take this agent's certificate is there, and so is one that the agent's key has not signed for. One that comes in
    /// the place of the agent's, and does not know it, is not it.
    pub fn is_server_away(&self) -> bool {
        match self {
            Self::Channel(ChannelError::Key(_)) => false,
            Self::Channel(_) => !self.is_certificate_refused(),
            Self::NotLetIn(_) => true,
            Self::Server(status) | Self::Attestation(AttestationError::Server(status)) => {
                matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
            }
            _ => false,
        }
    }

    /// Whether the server answered, but what it answered is not taken. Asking again at once would bring the same.
    pub fn is_refused_answer(&self) -> bool {
        match self {
            Self::Answer(_) => true,
            Self::Server(status) | Self::Attestation(AttestationError::Server(status)) => {
                status.code() == Code::OutOfRange
            }
            _ => false,
        }
    }

    /// Whether it is an attestation that failed.
    pub fn is_of_an_attestation(&self) -> bool {
        matches!(self, Self::Attestation(_))
    }

    /// Whether attestation failed because this agent has nothing to attest with, or because the server decided against it;
    /// not because it, its store or the way to it is ill.
    pub fn cannot_attest(&self) -> bool {
        match self {
            Self::Attestation(AttestationError::NoToken) => true,
            Self::Attestation(AttestationError::Server(status)) => matches!(
                status.code(),
                Code::InvalidArgument | Code::PermissionDenied | Code::NotFound | Code::FailedPrecondition
            ),
            _ => false,
        }
    }

    /// What the server wants done, if it said so.
    pub fn denial(&self) -> Option<Denial> {
        if let Self::Attestation(AttestationError::Server(status)) = self
            && (status.code(), status.message()) == (Code::PermissionDenied, BANNED_AT_SPIRES)
        {
            return Some(Denial::Banned);
        }
        let status = match self {
            Self::Server(status) | Self::Attestation(AttestationError::Server(status)) => status,
            _ => return None,
        };
        match denial_reason(status)? {
            Reason::AgentBanned => Some(Denial::Banned),
            Reason::AgentNotAttested => Some(Denial::NotAttested),
            Reason::AgentExpired | Reason::AgentNotActive | Reason::AgentMustReattest => Some(Denial::Reattest),
            Reason::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironroot_api::permission::permission_denied;

    #[test]
    fn an_answer_that_is_not_taken_is_told_from_a_server_that_is_away() {
        assert!(SyncError::Answer(AnswerRefusal::EmptyBundle).is_refused_answer());
        assert!(SyncError::Server(Status::out_of_range("")).is_refused_answer());
        assert!(SyncError::Attestation(AttestationError::Server(Status::out_of_range(""))).is_refused_answer());
        assert!(!SyncError::Server(Status::unavailable("")).is_refused_answer());
        assert!(!SyncError::NoBundle.is_refused_answer());
    }

    #[test]
    fn a_server_that_says_no_is_not_away() {
        let away = |code| SyncError::Server(Status::new(code, "")).is_server_away();
        assert!(away(Code::Unavailable) && away(Code::DeadlineExceeded));
        for code in [Code::PermissionDenied, Code::Unauthenticated, Code::Internal, Code::ResourceExhausted] {
            assert!(!away(code), "{code:?}");
        }
        assert!(!SyncError::Server(permission_denied(Reason::AgentBanned, "")).is_server_away());
        assert!(
            !SyncError::NoBundle.is_server_away() && !SyncError::Answer(AnswerRefusal::EmptyBundle).is_server_away()
        );
    }

    #[test]
    fn only_the_servers_explicit_word_is_a_ban() {
        let denial = |status| SyncError::Server(status).denial();
        assert_eq!(denial(permission_denied(Reason::AgentBanned, "")), Some(Denial::Banned));
        assert_eq!(denial(permission_denied(Reason::AgentNotAttested, "")), Some(Denial::NotAttested));
        for reason in [Reason::AgentExpired, Reason::AgentNotActive, Reason::AgentMustReattest] {
            assert_eq!(denial(permission_denied(reason, "")), Some(Denial::Reattest));
        }
        assert_eq!(denial(Status::permission_denied("agent is banned")), None);
        assert_eq!(denial(Status::permission_denied(BANNED_AT_SPIRES)), None, "that is how it answers attestations");
        let attesting = |status| SyncError::Attestation(AttestationError::Server(status)).denial();
        assert_eq!(attesting(Status::permission_denied(BANNED_AT_SPIRES)), Some(Denial::Banned));
        assert_eq!(attesting(Status::permission_denied("failed to attest: agent is banned by nobody")), None);
        assert_eq!(attesting(Status::invalid_argument(BANNED_AT_SPIRES)), None);
        assert_eq!(denial(Status::unavailable("")), None);
        let attesting = AttestationError::Server(permission_denied(Reason::AgentBanned, ""));
        assert_eq!(SyncError::Attestation(attesting).denial(), Some(Denial::Banned));
    }

    #[test]
    fn what_a_placed_server_says_of_an_agent_that_it_does_not_know_is_no_eviction_and_its_ban_is_one() {
        let said = |reason| SyncError::of_a_placed_server(AttestationError::Server(permission_denied(reason, "")));
        let unknown = said(Reason::AgentNotAttested);
        assert!(unknown.denial().is_none() && !unknown.cannot_attest() && !unknown.is_of_an_attestation());
        assert!(unknown.is_server_away(), "it is not the agent's own");
        let refused = AttestationError::Server(Status::permission_denied("not enrolled"));
        assert!(!SyncError::of_a_placed_server(refused).cannot_attest());
        assert_eq!(said(Reason::AgentBanned).denial(), Some(Denial::Banned));
        assert!(SyncError::of_a_placed_server(AttestationError::NoToken).cannot_attest());
    }

    #[test]
    fn only_a_decision_against_the_agent_is_an_eviction() {
        let refused = |code| SyncError::Attestation(AttestationError::Server(Status::new(code, ""))).cannot_attest();
        assert!(SyncError::Attestation(AttestationError::NoToken).cannot_attest());
        for code in [Code::InvalidArgument, Code::PermissionDenied, Code::NotFound, Code::FailedPrecondition] {
            assert!(refused(code), "{code:?}");
        }
        for code in [
            Code::Unavailable,
            Code::Internal,
            Code::Unknown,
            Code::DeadlineExceeded,
            Code::ResourceExhausted,
            Code::Unimplemented,
            Code::Cancelled,
        ] {
            assert!(!refused(code), "{code:?}: the server, its store or the way to it is ill");
        }
        assert!(!SyncError::NoBundle.cannot_attest());
    }
}
