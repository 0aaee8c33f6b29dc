//! What is said of an order: its status, the line of the log, the object of the audit's.

use ironroot_shell::command_line::describe;
use tonic::Status;
use tracing::error;

use crate::ca::{Order, OrderError, OrderRefusal, Purpose};

/// What audit lines say an order is about.
pub(super) fn object(order: &Order) -> String {
    match order {
        Order::Prepare(purpose) => purpose.to_string(),
        Order::Activate(_, id) | Order::Taint(_, id) | Order::Revoke(_, id) => id.clone(),
        Order::TaintUpstream(id) | Order::RevokeUpstream(id) => id.clone(),
    }
}

/// The log's word for what was done. Source: SPIRE, pkg/server/api/localauthority/v1/service.go; its suites wait for them.
pub(super) fn success(order: &Order) -> Option<&'static str> {
    match order {
        Order::Prepare(_) | Order::Activate(..) => None,
        Order::Taint(Purpose::Jwt, _) => Some("JWT authority tainted successfully"),
        Order::Taint(Purpose::Wit, _) => Some("WIT authority tainted successfully"),
        Order::Taint(..) => Some("X.509 authority tainted successfully"),
        Order::Revoke(Purpose::Jwt, _) => Some("JWT authority revoked successfully"),
        Order::Revoke(Purpose::Wit, _) => Some("WIT authority revoked successfully"),
        Order::Revoke(..) => Some("X.509 authority revoked successfully"),
        Order::TaintUpstream(_) => Some("X.509 upstream authority tainted successfully"),
        Order::RevokeUpstream(_) => Some("X.509 upstream authority successfully revoked"),
    }
}

/// What SPIRE says before the reason when the token or the data store fails. Source: as above.
pub(super) fn failure(order: &Order) -> &'static str {
    match order {
        Order::Prepare(Purpose::Jwt) => "failed to prepare JWT authority",
        Order::Prepare(Purpose::Wit) => "failed to prepare WIT authority",
        Order::Prepare(Purpose::Root) => "failed to prepare the root",
        Order::Prepare(Purpose::X509Ca) => "failed to prepare X.509 authority",
        Order::Activate(Purpose::Jwt, _) => "failed to activate JWT authority",
        Order::Activate(Purpose::Wit, _) => "failed to activate WIT authority",
        Order::Activate(Purpose::Root, _) => "failed to activate the root",
        Order::Activate(Purpose::X509Ca, _) => "failed to activate X.509 authority",
        Order::Taint(Purpose::Jwt, _) => "failed to taint JWT authority",
        Order::Taint(Purpose::Wit, _) => "failed to taint WIT authority",
        Order::Taint(..) => "failed to taint X.509 authority",
        Order::Revoke(Purpose::Jwt, _) => "failed to revoke JWT authority",
        Order::Revoke(Purpose::Wit, _) => "failed to revoke WIT authority",
        Order::Revoke(..) => "failed to revoke X.509 authority",
        Order::TaintUpstream(_) => "failed to taint upstream authority",
        Order::RevokeUpstream(_) => "failed to revoke X.509 upstream authority",
    }
}

/// Whose fault decides the code, as SPIRE has it.
pub(super) fn status(error: OrderError, failure: &str) -> Status {
    use OrderRefusal::{
        Clock, Initializing, IsAbove, IsBelowARoot, IsBelowOwnRoot, IsNotTainted, IsTainted, NoId, NoRoot, NoSubject,
        NotOld, NotPrepared, NotRevocable, OtherId, RevokesActive, RevokesNoId, RevokesPrepared, RootIsPrepared,
        SignedNoOld, SignsActive, SignsPrepared, StillListed, TaintsActive, TooManyRetired,
    };
    let refusal = match error {
        OrderError::Refused(refusal) => refusal,
        // It is done as far as it can be here, and the rest is the operator's to do.
        OrderError::Failed(cause) if cause.awaits_root() => return Status::failed_precondition(describe(&cause)),
        OrderError::Failed(cause) => {
            error!(error = &cause as &dyn std::error::Error, "{failure}");
            return Status::internal(format!("{failure}: {}", describe(&cause)));
        }
        OrderError::SignerMissing { .. } => {
            error!("{failure}: {error}");
            return Status::internal(error.to_string());
        }
        OrderError::Busy => return Status::resource_exhausted(error.to_string()),
        OrderError::Stopped => return Status::unavailable(error.to_string()),
    };
    let words = refusal.to_string();
    match refusal {
        Initializing => Status::unavailable(words),
        NotPrepared(_) | IsTainted(_) | IsNotTainted(_) | Clock(_) => Status::internal(words),
        TooManyRetired(_) => Status::resource_exhausted(words),
        IsBelowARoot(_) | IsBelowOwnRoot(_) | NoRoot | RootIsPrepared | StillListed | IsAbove(_) => {
            Status::failed_precondition(words)
        }
        NoId | OtherId | TaintsActive | NotOld(_) | RevokesNoId | RevokesActive | RevokesPrepared(_)
        | NotRevocable(_) | NoSubject(_) | SignsActive(_) | SignedNoOld(_) | SignsPrepared(_) => {
            Status::invalid_argument(words)
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::ca::{Action, CaError, Status as Standing};

    use OrderRefusal::*;

    // Source: SPIRE, pkg/server/api/localauthority/v1/service.go and service_test.go.
    const SPIRES: [(OrderRefusal, Code, &str); 25] = [
        (Initializing, Code::Unavailable, "server is initializing"),
        (NoId, Code::InvalidArgument, "no authority ID provided"),
        (OtherId, Code::InvalidArgument, "unexpected authority ID"),
        (
            NotPrepared(Standing::Old),
            Code::Internal,
            "only Prepared authorities can be activated: unsupported local authority status: OLD",
        ),
        (TaintsActive, Code::InvalidArgument, "unable to taint current local authority"),
        (
            NotOld(Standing::Prepared),
            Code::InvalidArgument,
            "only Old local authorities can be tainted: unsupported local authority status: PREPARED",
        ),
        (IsTainted(Purpose::Jwt), Code::Internal, "failed to taint JWT authority: key is already tainted"),
        (IsTainted(Purpose::X509Ca), Code::Internal, "failed to taint X.509 authority: root CA is already tainted"),
        (IsTainted(Purpose::Root), Code::Internal, "failed to taint upstream authority: root CA is already tainted"),
        (RevokesNoId, Code::InvalidArgument, "invalid authority ID: no authority ID provided"),
        (RevokesActive, Code::InvalidArgument, "invalid authority ID: unable to use current authority"),
        (RevokesPrepared(Purpose::Jwt), Code::InvalidArgument, "invalid authority ID: unable to use a prepared key"),
        (
            RevokesPrepared(Purpose::X509Ca),
            Code::InvalidArgument,
            "invalid authority ID: only Old local authority can be revoked",
        ),
        (
            NotRevocable(Purpose::Jwt),
            Code::InvalidArgument,
            "invalid authority ID: no JWT authority found with provided authority ID",
        ),
        (
            NotRevocable(Purpose::X509Ca),
            Code::InvalidArgument,
            "invalid authority ID: only Old local authority can be revoked",
        ),
        (
            IsNotTainted(Purpose::Jwt),
            Code::Internal,
            "failed to revoke JWT authority: it is not possible to revoke an untainted key",
        ),
        (
            IsNotTainted(Purpose::X509Ca),
            Code::Internal,
            "failed to revoke X.509 authority: it is not possible to revoke an untainted root CA",
        ),
        (
            IsNotTainted(Purpose::Root),
            Code::Internal,
            "failed to revoke X.509 upstream authority: it is not possible to revoke an untainted root CA",
        ),
        (
            IsBelowARoot(Action::Taint),
            Code::FailedPrecondition,
            "local authority can't be tainted if there is an upstream authority",
        ),
        (
            IsBelowARoot(Action::Revoke),
            Code::FailedPrecondition,
            "local authority can't be revoked if there is an upstream authority",
        ),
        (NoRoot, Code::FailedPrecondition, "upstream authority is not configured"),
        (
            NoSubject(Action::Taint),
            Code::InvalidArgument,
            "provided subject key id is not valid: no subject key ID provided",
        ),
        (
            SignsActive(Action::Revoke),
            Code::InvalidArgument,
            "invalid subject key ID: unable to use upstream authority singing current authority",
        ),
        (
            SignedNoOld(Action::Taint),
            Code::InvalidArgument,
            "provided subject key id is not valid: upstream authority didn't sign the old local authority",
        ),
        (
            SignsPrepared(Action::Revoke),
            Code::InvalidArgument,
            "invalid subject key ID: only upstream authorities signing an old authority can be used",
        ),
    ];

    #[test]
    fn each_refusal_has_spires_code_and_words() {
        for (refusal, code, words) in SPIRES {
            let answer = status(refusal.into(), "failed");
            assert_eq!((answer.code(), answer.message()), (code, words), "{refusal:?}");
        }
    }

    /// What SPIRE does not refuse.
    #[test]
    fn a_refusal_of_our_own_says_what_to_do() {
        for (error, code, words) in [
            (OrderRefusal::Clock(Purpose::X509Ca).into(), Code::Internal, "correct it and try again"),
            (
                OrderRefusal::TooManyRetired(Purpose::Jwt).into(),
                Code::ResourceExhausted,
                "taint and revoke them, or wait",
            ),
            (
                OrderRefusal::IsBelowOwnRoot(Action::Revoke).into(),
                Code::FailedPrecondition,
                "\"upstreamauthority revoke -subjectKeyID\" is for the one before",
            ),
            (OrderRefusal::IsAbove(Purpose::Jwt).into(), Code::FailedPrecondition, "revoke it there first"),
            (OrderRefusal::RootIsPrepared.into(), Code::FailedPrecondition, "prepared already; activate it"),
            (OrderError::Busy, Code::ResourceExhausted, "try again"),
            (OrderError::Stopped, Code::Unavailable, "the server is stopping"),
            (CaError::Interrupted.into(), Code::Internal, "failed to prepare JWT authority: "),
        ] {
            let answer = status(error, "failed to prepare JWT authority");
            assert_eq!(answer.code(), code, "{answer}");
            assert!(answer.message().contains(words), "{answer}");
        }
    }
}
