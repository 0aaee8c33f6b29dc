//! How much was signed, what for, and how long it took.

use std::time::Instant;

use ironroot_shell::telemetry::{Counter, Histogram};
use tokio::sync::Notify;

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the certificate's holder by its name")]
pub enum SignedFor {
    Agent,
    Workload,
    Administrator,
    Server,
    DownstreamCa,
    JwtSvid,
    WitSvid,
}

impl SignedFor {
    /// Each, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Agent,
        Self::Workload,
        Self::Administrator,
        Self::Server,
        Self::DownstreamCa,
        Self::JwtSvid,
        Self::WitSvid,
    ];

    /// Whether it is a certificate of an identity: neither a CA's nor a token.
    pub fn is_x509_svid(self) -> bool {
        match self {
            Self::Agent | Self::Workload | Self::Administrator | Self::Server => true,
            Self::DownstreamCa | Self::JwtSvid | Self::WitSvid => false,
        }
    }

    /// What metrics call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Workload => "workload",
            Self::Administrator => "administrator",
            Self::Server => "server",
            Self::DownstreamCa => "downstream_ca",
            Self::JwtSvid => "jwt_svid",
            Self::WitSvid => "wit_svid",
        }
    }
}

/// What became of requests of one kind.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// How long those took that were signed: the token's queue, the token, and the look at the result.
    pub signed: Histogram,
    /// Those that were not: the CA, the token, or what it signed.
    pub failed: Counter,
}

/// Of all kinds.
#[derive(Debug, Default)]
pub struct Signed {
    outcomes: [Outcomes; SignedFor::ALL.len()],
    failure: Notify,
}

impl Signed {
    /// Those of one kind.
    pub fn of(&self, what: SignedFor) -> &Outcomes {
        &self.outcomes[what as usize]
    }

    /// Notes what came of a request that began then, and passes it on.
    pub(super) fn note<T, E>(&self, what: SignedFor, began: Instant, done: Result<T, E>) -> Result<T, E> {
        match &done {
            Ok(_) => self.of(what).signed.took(began.elapsed()),
            Err(_) => {
                self.of(what).failed.one_more();
                self.failure.notify_one();
            }
        }
        done
    }

    /// Waits until a request has failed, if none has since the last that was waited for. For one who waits.
    pub async fn one_failed(&self) {
        self.failure.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_failure_is_told_and_once() {
        let signed = Signed::default();
        let note = |done: Result<(), ()>| signed.note(SignedFor::Agent, Instant::now(), done).is_ok();
        note(Ok(()));
        let nothing = tokio::time::timeout(Duration::ZERO, signed.one_failed()).await;
        assert!(nothing.is_err(), "what was signed is no failure");
        note(Err(()));
        note(Err(()));
        signed.one_failed().await;
        assert!(tokio::time::timeout(Duration::ZERO, signed.one_failed()).await.is_err(), "once for both");
    }
}
