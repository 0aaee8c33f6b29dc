//! Why a broker is told nothing of a workload.

use std::collections::HashMap;
use std::error::Error;
use std::time::Instant;

use ironroot_api::SpiffeId;
use ironroot_api::pb::rpc::ErrorInfo;
use ironroot_api::pb::types::StatusWithDetails;
use ironroot_shell::logging::clipped;
use prost::Message;
use prost_types::Any;
use thiserror::Error;
use tonic::{Code, Status};
use tracing::warn;

use super::trust::{AuthenticatedBroker, BrokerUnproven};
use crate::endpoints::admission::About;
use crate::endpoints::caller::Known;
use crate::endpoints::serving::Serving;

/// Whose reasons these are. Source: SPIFFE_Broker_API.md §4.8.
const DOMAIN: &str = "spiffe.io";
/// The type of the details. Source: google/rpc/error_details.proto.
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// See the module. The first words of some are SPIRE's.
#[derive(Debug, Error)]
pub(super) enum BrokerRefusal {
    #[error("the broker's X509-SVID is not believed any more")]
    Unproven(#[from] BrokerUnproven),
    #[error("workload reference must be provided")]
    NoReference,
    #[error("broker {broker:?} is not allowed to use reference type {type_url:?}")]
    TypeNotAllowed { broker: String, type_url: String },
    #[error("no workload attestor handled reference: type {0:?} is not understood by this agent")]
    UnknownType(String),
    #[error("the reference is no spiffe.broker.WorkloadPIDReference")]
    Malformed,
    #[error("the number of a process is above 0, and not {0}")]
    NoProcessNumber(i32),
    #[error("the broker is in another PID namespace than the agent, where its numbers of processes name others")]
    OtherNumbers,
    #[error("there is no process {0}")]
    NoSuchProcess(i32),
    #[error("process {0} has exited")]
    Exited(i32),
    #[error("no identity issued")]
    NotEntitled,
}

impl BrokerRefusal {
    pub fn type_not_allowed(broker: &SpiffeId, type_url: &str) -> Self {
        Self::TypeNotAllowed { broker: broker.to_string(), type_url: clipped(type_url).to_string() }
    }

    pub fn unknown_type(type_url: &str) -> Self {
        Self::UnknownType(clipped(type_url).to_string())
    }

    /// The same as an answer, and once in a while a line in the log.
    pub fn told(self, serving: &Serving, caller: &Known, broker: &AuthenticatedBroker, method: &'static str) -> Status {
        let (uid, pid) = (caller.peer.uid(), caller.peer.pid());
        if let Some(pass) = serving.admission().should_log(uid, About::Broker, Instant::now()) {
            let (broker, refusal) = (broker.spiffe_id(), &self as &dyn Error);
            warn!(uid, pid, %broker, method, refusal, suppressed = pass.suppressed, "a broker is told nothing");
        }
        self.into()
    }

    fn code(&self) -> Code {
        match self {
            Self::Unproven(_) => Code::Unauthenticated,
            Self::NoReference | Self::UnknownType(_) | Self::Malformed | Self::NoProcessNumber(_) => {
                Code::InvalidArgument
            }
            Self::OtherNumbers => Code::InvalidArgument,
            Self::NoSuchProcess(_) | Self::Exited(_) => Code::NotFound,
            Self::TypeNotAllowed { .. } | Self::NotEntitled => Code::PermissionDenied,
        }
    }

    /// For programs. Source: SPIFFE_Broker_API.md §4.8.
    fn reason(&self) -> Option<&'static str> {
        match (self.code(), self) {
            (_, Self::TypeNotAllowed { .. }) => None,
            (Code::InvalidArgument, _) => Some("WORKLOAD_REFERENCE_INVALID"),
            (Code::NotFound, _) => Some("WORKLOAD_NOT_FOUND"),
            (Code::PermissionDenied, _) => Some("WORKLOAD_NOT_ENTITLED"),
            _ => None,
        }
    }
}

impl From<BrokerRefusal> for Status {
    //= BRK-05 SPIFFE Broker API 4.8: "The server MUST return appropriate gRPC status codes to indicate different failure conditions"
    fn from(refusal: BrokerRefusal) -> Self {
        let (code, message) = (refusal.code(), refusal.to_string());
        let Some(reason) = refusal.reason() else { return Self::new(code, message) };
        let (reason, domain) = (reason.to_owned(), DOMAIN.to_owned());
        let value = ErrorInfo { reason, domain, metadata: HashMap::new() }.encode_to_vec();
        let details = vec![Any { type_url: ERROR_INFO.to_owned(), value }];
        let status = StatusWithDetails { code: code.into(), message: message.clone(), details };
        Self::with_details(code, message, status.encode_to_vec().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= BRK-05
    #[test]
    fn each_refusal_has_the_code_and_the_reason_of_the_standard() {
        let broker = SpiffeId::parse("spiffe://td/broker").expect("legal");
        for (refusal, code, reason) in [
            (BrokerRefusal::NoReference, Code::InvalidArgument, Some("WORKLOAD_REFERENCE_INVALID")),
            (BrokerRefusal::unknown_type("x"), Code::InvalidArgument, Some("WORKLOAD_REFERENCE_INVALID")),
            (BrokerRefusal::Malformed, Code::InvalidArgument, Some("WORKLOAD_REFERENCE_INVALID")),
            (BrokerRefusal::NoProcessNumber(-1), Code::InvalidArgument, Some("WORKLOAD_REFERENCE_INVALID")),
            (BrokerRefusal::OtherNumbers, Code::InvalidArgument, Some("WORKLOAD_REFERENCE_INVALID")),
            (BrokerRefusal::NoSuchProcess(7), Code::NotFound, Some("WORKLOAD_NOT_FOUND")),
            (BrokerRefusal::Exited(7), Code::NotFound, Some("WORKLOAD_NOT_FOUND")),
            (BrokerRefusal::NotEntitled, Code::PermissionDenied, Some("WORKLOAD_NOT_ENTITLED")),
            (BrokerRefusal::type_not_allowed(&broker, "x"), Code::PermissionDenied, None),
            (BrokerRefusal::Unproven(BrokerUnproven::NoCertificate), Code::Unauthenticated, None),
        ] {
            let text = refusal.to_string();
            let status = Status::from(refusal);
            assert_eq!((status.code(), status.message()), (code, &*text));
            let details = StatusWithDetails::decode(status.details()).expect("a status");
            let info = details.details.first().map(|any| {
                assert_eq!(any.type_url, ERROR_INFO);
                ErrorInfo::decode(&any.value[..]).expect("its form")
            });
            assert_eq!(info.as_ref().map(|info| &*info.reason), reason);
            assert!(info.is_none_or(|info| info.domain == "spiffe.io" && details.code == i32::from(code)));
        }
    }
}
