//! The table of what this socket offers.

use std::time::Duration;

use ironroot_api::jwt::MAX_TOKEN_BYTES;
use thiserror::Error;

/// Longest message of most requests, bytes. Those for X509-SVIDs and bundles are empty; health checks and reflection name
/// something.
pub(in crate::endpoints) const MAX_MESSAGE_BYTES: usize = 1024;
/// Longest message that is about a JWT-SVID, bytes: the longest token, or as many audiences as fit into one, and a SPIFFE ID.
pub(in crate::endpoints) const MAX_JWT_MESSAGE_BYTES: usize = MAX_TOKEN_BYTES + 4096;
/// Before each message of a body. Source: gRPC over HTTP2, Length-Prefixed-Message.
const PREFIX_BYTES: usize = 5;

/// What a method belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    WorkloadApi,
    JwtSvid,
    Health,
    Reflection,
}

/// How much a request's body may be, in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub bytes: usize,
    pub time: Duration,
}

/// Why a method is answered `Unimplemented`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum NotOffered {
    #[error("Envoy's Secret Discovery Service is not offered by this agent; use the Workload API (FetchX509SVID)")]
    Sds,
    #[error("no such method on the Workload API socket of this agent")]
    Unknown,
}

/// Every method there is. What is not here does not exist.
//= WLA-01 SPIFFE Workload API 3: "the X.509-SVID and the JWT-SVID profile are both there"
//= WLE-08 SPIFFE Workload Endpoint 7: "such as the SPIFFE Workload API MUST NOT be extended directly"
const METHODS: [(&str, Offer); 9] = [
    ("/SpiffeWorkloadAPI/FetchX509SVID", Offer::WorkloadApi),
    ("/SpiffeWorkloadAPI/FetchX509Bundles", Offer::WorkloadApi),
    ("/SpiffeWorkloadAPI/FetchJWTSVID", Offer::JwtSvid),
    ("/SpiffeWorkloadAPI/FetchJWTBundles", Offer::WorkloadApi),
    ("/SpiffeWorkloadAPI/ValidateJWTSVID", Offer::JwtSvid),
    ("/grpc.health.v1.Health/Check", Offer::Health),
    ("/grpc.health.v1.Health/Watch", Offer::Health),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Offer::Reflection),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Offer::Reflection),
];

impl Offer {
    pub fn of(path: &str) -> Result<Self, NotOffered> {
        let known = METHODS.iter().find(|(method, _)| *method == path);
        //= WLA-12 SPIFFE Workload API 7: "calls to all RPCs defined by the WIT-SVID profile MUST return"
        known.map(|(_, offer)| *offer).ok_or_else(|| NotOffered::because(path))
    }

    /// Source: SPIFFE_Workload_Endpoint.md §3; SPIRE exempts health checks and reflection.
    pub fn wants_security_header(self) -> bool {
        matches!(self, Self::WorkloadApi | Self::JwtSvid)
    }

    pub fn bounds(self) -> Bounds {
        match self {
            Self::WorkloadApi | Self::Health => {
                Bounds { bytes: PREFIX_BYTES + MAX_MESSAGE_BYTES, time: Duration::from_secs(5) }
            }
            Self::JwtSvid => Bounds { bytes: PREFIX_BYTES + MAX_JWT_MESSAGE_BYTES, time: Duration::from_secs(5) },
            // A conversation: a tool asks for one file after the other.
            Self::Reflection => Bounds { bytes: 64 * 1024, time: Duration::from_secs(60) },
        }
    }
}

impl NotOffered {
    fn because(path: &str) -> Self {
        match path.rsplit_once('/') {
            Some(("/envoy.service.secret.v3.SecretDiscoveryService", _)) => Self::Sds,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironroot_api::pb::workload::DESCRIPTORS;
    use prost::Message;
    use prost_types::FileDescriptorSet;

    /// Every method of the services that this socket serves, by their own descriptors.
    fn served() -> Vec<String> {
        let sets = [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
        let files = sets.iter().flat_map(|set| FileDescriptorSet::decode(*set).expect("descriptors").file);
        let methods = |file: prost_types::FileDescriptorProto| {
            let package = if file.package().is_empty() { String::new() } else { format!("{}.", file.package()) };
            let of = move |service: &prost_types::ServiceDescriptorProto| {
                let name = format!("/{package}{}/", service.name());
                service.method.iter().map(|method| format!("{name}{}", method.name())).collect::<Vec<_>>()
            };
            file.service.iter().flat_map(of).collect::<Vec<_>>()
        };
        files.flat_map(methods).collect()
    }

    //= WLA-01 WLE-08
    #[test]
    fn every_method_that_is_served_is_in_the_table_and_no_other() {
        for method in served() {
            assert!(Offer::of(&method).is_ok(), "{method}");
        }
        let without_reflection = METHODS.iter().filter(|(_, offer)| *offer != Offer::Reflection);
        assert!(without_reflection.clone().all(|(method, _)| served().contains(&(*method).to_owned())));
        assert_eq!(without_reflection.count(), served().len());
    }

    //= WLA-12
    #[test]
    fn what_is_not_offered_is_named() {
        for (path, refusal) in [
            ("/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets", NotOffered::Sds),
            ("/SpiffeWorkloadAPI/FetchWITSVID", NotOffered::Unknown),
            ("/SpiffeWorkloadAPI/FetchWITBundles", NotOffered::Unknown),
            ("/SpiffeWorkloadAPI/fetchX509SVID", NotOffered::Unknown),
            ("/spire.api.server.entry.v1.Entry/ListEntries", NotOffered::Unknown),
            ("", NotOffered::Unknown),
            ("*", NotOffered::Unknown),
        ] {
            assert_eq!(Offer::of(path), Err(refusal), "{path:?}");
        }
    }
}
