//! Why an order is not carried out. The words are SPIRE's wherever it has words: scripts know them.

use std::fmt;

use thiserror::Error;

use super::MAX_RETIRED_BY_HAND;
use crate::ca::purpose::Purpose;

/// What an authority is doing. Source of the words: SPIRE, `journal.Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It signs.
    Active,
    /// It is in the bundle, and signs nothing yet.
    Prepared,
    /// It has signed.
    Old,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "ACTIVE",
            Self::Prepared => "PREPARED",
            Self::Old => "OLD",
        })
    }
}

/// What was to be done to an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To taint it.
    Taint,
    /// To revoke it.
    Revoke,
}

impl Action {
    fn participle(self) -> &'static str {
        match self {
            Self::Taint => "tainted",
            Self::Revoke => "revoked",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Taint => "taint",
            Self::Revoke => "revoke",
        }
    }

    /// What SPIRE says before the reason why a root is not the one to do it to.
    fn wrong_subject(self) -> &'static str {
        match self {
            Self::Taint => "provided subject key id is not valid",
            Self::Revoke => "invalid subject key ID",
        }
    }
}

/// Why an order is not carried out. Source: SPIRE, pkg/server/api/localauthority/v1/service.go, pkg/server/datastore/sqlstore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OrderRefusal {
    /// Nothing of this purpose signs yet.
    #[error("server is initializing")]
    Initializing,
    /// What would be certified now would begin and end at the wrong time.
    #[error(
        "failed to prepare {} authority: this server's clock has jumped, and the health check says when; correct it and try again",
        noun(*.0)
    )]
    Clock(Purpose),
    /// Each that was replaced is in the bundle until it ends.
    #[error(
        "failed to prepare {} authority: {MAX_RETIRED_BY_HAND} that were replaced have not ended; taint and revoke them, or wait",
        noun(*.0)
    )]
    TooManyRetired(Purpose),
    /// A root that others may know is not replaced.
    #[error("failed to prepare root: the next one is prepared already; activate it")]
    RootIsPrepared,
    /// No authority is named.
    #[error("no authority ID provided")]
    NoId,
    /// It is not the ID of an authority that this can be done to.
    #[error("unexpected authority ID")]
    OtherId,
    /// What is to be activated has signed before.
    #[error("only Prepared authorities can be activated: unsupported local authority status: {0}")]
    NotPrepared(Status),
    /// Whatever signs now would be replaced by itself.
    #[error("unable to taint current local authority")]
    TaintsActive,
    /// What is to be tainted has signed nothing.
    #[error("only Old local authorities can be tainted: unsupported local authority status: {0}")]
    NotOld(Status),
    /// It was said before.
    #[error("{}", already_tainted(*.0))]
    IsTainted(Purpose),
    /// No authority is named that is to be revoked.
    #[error("invalid authority ID: no authority ID provided")]
    RevokesNoId,
    /// What signs now is to be revoked.
    #[error("invalid authority ID: unable to use current authority")]
    RevokesActive,
    /// What is to be revoked has signed nothing.
    #[error("invalid authority ID: {}", match .0 {
        Purpose::Jwt | Purpose::Wit => "unable to use a prepared key",
        Purpose::Root | Purpose::X509Ca => "only Old local authority can be revoked",
    })]
    RevokesPrepared(Purpose),
    /// What is to be revoked is not known here.
    #[error("invalid authority ID: {}", match .0 {
        Purpose::Jwt => "no JWT authority found with provided authority ID",
        Purpose::Wit => "no WIT authority found with provided authority ID",
        Purpose::Root | Purpose::X509Ca => "only Old local authority can be revoked",
    })]
    NotRevocable(Purpose),
    /// What it has signed is not replaced yet.
    #[error("failed to revoke {}", match .0 {
        Purpose::Jwt => "JWT authority: it is not possible to revoke an untainted key",
        Purpose::Wit => "WIT authority: it is not possible to revoke an untainted key",
        Purpose::X509Ca => "X.509 authority: it is not possible to revoke an untainted root CA",
        Purpose::Root => "X.509 upstream authority: it is not possible to revoke an untainted root CA",
    })]
    IsNotTainted(Purpose),
    /// A root is in the bundle, and not this CA.
    #[error("local authority can't be {} if there is an upstream authority", .0.participle())]
    IsBelowARoot(Action),
    /// The same, and the root is this server's own, which is there unless the configuration says otherwise.
    #[error(
        "local authority can't be {} if there is an upstream authority: here that is the root that this server has made (root {{ }}, on by default), and bundles have that alone; \
         \"upstreamauthority show\" names it: \"upstreamauthority prepare\" and \"activate\" replace it, \"upstreamauthority {} -subjectKeyID\" is for the one before",
        .0.participle(), .0.verb()
    )]
    IsBelowOwnRoot(Action),
    /// There is no root.
    #[error("upstream authority is not configured")]
    NoRoot,
    /// No root is named.
    #[error("{}: no subject key ID provided", .0.wrong_subject())]
    NoSubject(Action),
    /// It is the root above the CA that signs, or the one that signs the next. The misspelling is SPIRE's.
    #[error("{}: unable to use upstream authority singing current authority", .0.wrong_subject())]
    SignsActive(Action),
    /// It is no root of an old CA.
    #[error("{}: upstream authority didn't sign the old local authority", .0.wrong_subject())]
    SignedNoOld(Action),
    /// It would be back at once.
    #[error(
        "failed to revoke X.509 upstream authority: roots_path still has that root, and it would be in the bundle again: take it out there first"
    )]
    StillListed,
    /// It would be back at once.
    #[error("failed to revoke {} authority: the authority above has that key too, and it would be in the bundle again: revoke it there first", noun(*.0))]
    IsAbove(Purpose),
    /// It is the root above the CA that signs next.
    #[error("{}: only upstream authorities signing an old authority can be used", .0.wrong_subject())]
    SignsPrepared(Action),
}

fn noun(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Jwt => "JWT",
        Purpose::Wit => "WIT",
        Purpose::Root | Purpose::X509Ca => "X.509",
    }
}

fn already_tainted(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Jwt => "failed to taint JWT authority: key is already tainted",
        Purpose::Wit => "failed to taint WIT authority: key is already tainted",
        Purpose::X509Ca => "failed to taint X.509 authority: root CA is already tainted",
        Purpose::Root => "failed to taint upstream authority: root CA is already tainted",
    }
}
