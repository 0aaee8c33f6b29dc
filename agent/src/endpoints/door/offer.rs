//! The table of what this socket offers.

use std::time::Duration;

use ironroot_api::jwt::MAX_TOKEN_BYTES;
use thiserror::Error;

/// Longest message of most requests, bytes. Those for X509-SVIDs and bundles are empty; health checks and reflection name
/// something.
pub(in crate::endpoints) const MAX_MESSAGE_BYTES: usize = 1024;
/// Longest message that is about a JWT-SVID, bytes: the longest token, or as many audiences as fit into one, and a SPIFFE ID.
pub(in crate::endpoints) const MAX_JWT_MESSAGE_BYTES: usize = MAX_TOKEN_BYTES + 4096;
/// Longest message of a delegate, bytes: audiences, and some hundred selectors.
pub(in crate::endpoints) const MAX_DELEGATED_MESSAGE_BYTES: usize = 32 * 1024;
/// Keep browsers and naive proxies from being talked into asking. Source: SPIFFE_Workload_Endpoint.md §3.
const WORKLOAD_HEADER: &str = "workload.spiffe.io";
/// The same for brokers. Source: SPIFFE_Broker_Endpoint.md §3.
const BROKER_HEADER: &str = "broker.spiffe.io";
/// Before each message of a body. Source: gRPC over HTTP2, Length-Prefixed-Message.
const PREFIX_BYTES: usize = 5;

/// What a method belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    WorkloadApi,
    JwtSvid,
    Explain,
    HardwareKey,
    WitSvid,
    Secrets,
    Health,
    Reflection,
    Administration,
    Delegated,
    Broker,
    BrokersReflection,
}

/// An API whose calls are counted as SPIRE's agent counts them, by service; health checks, reflection and what is ours it does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// SPIFFE's, of workloads.
    Workload,
    /// Envoy's secrets.
    Sds,
    /// Of delegates.
    DelegatedIdentity,
    /// What the agent says of itself.
    Debug,
    /// The level of its log.
    Logger,
}

impl Api {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Workload, Self::Sds, Self::DelegatedIdentity, Self::Debug, Self::Logger];
}

/// How much a request's body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounds {
    /// Of the one message.
    Message { bytes: usize, time: Duration },
    /// Of all messages, each of which is answered.
    Conversation { bytes: usize, time: Duration },
    /// Each of an Envoy's messages, on streams that stay: see [`super::discovery`].
    EachMessage,
}

/// Which socket a request came by, and so what is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::endpoints) enum Socket {
    /// The workloads'; which of its APIs the configuration leaves on.
    Workloads { api: bool, wit_svids: bool, secrets: bool },
    /// The admin socket.
    Administration,
    /// The brokers'.
    Brokers,
}

/// Why a method is answered `Unimplemented`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum NotOffered {
    #[error("the Workload API is switched off on this agent (disable_workload_api)")]
    WorkloadApi,
    #[error("WIT-SVIDs are not enabled on this agent (enable_wit_svids)")]
    WitSvids,
    #[error("Envoy's Secret Discovery Service is switched off on this agent (disable_sds_api)")]
    Secrets,
    /// SPIRE's words begin it.
    #[error("Method is not implemented: secrets are served by StreamSecrets and FetchSecrets (api_type: GRPC)")]
    DeltaSecrets,
    #[error("no such method on the Workload API socket of this agent")]
    Unknown,
    #[error("no such method on the admin socket of this agent")]
    UnknownToAdministration,
    #[error("no such method on the broker's socket of this agent")]
    UnknownToBrokers,
}

/// Every method there is. What is not here does not exist.
//= WLA-01 SPIFFE Workload API 3: "the X.509-SVID and the JWT-SVID profile are both there"
//= WLE-08 SPIFFE Workload Endpoint 7: "such as the SPIFFE Workload API MUST NOT be extended directly"
static METHODS: [(&str, Offer); 16] = [
    ("/SpiffeWorkloadAPI/FetchX509SVID", Offer::WorkloadApi),
    ("/SpiffeWorkloadAPI/FetchX509Bundles", Offer::WorkloadApi),
    ("/SpiffeWorkloadAPI/FetchJWTSVID", Offer::JwtSvid),
    ("/SpiffeWorkloadAPI/FetchJWTBundles", Offer::WorkloadApi),
    ("/SpiffeWorkloadAPI/ValidateJWTSVID", Offer::JwtSvid),
    ("/SpiffeWorkloadAPI/FetchWITSVID", Offer::WitSvid),
    ("/SpiffeWorkloadAPI/FetchWITBundles", Offer::WitSvid),
    ("/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets", Offer::Secrets),
    ("/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets", Offer::Secrets),
    ("/ironroot.api.agent.explain.v1.Explain/ExplainCaller", Offer::Explain),
    ("/ironroot.api.agent.hardwarekey.v1.HardwareKey/FetchIdentities", Offer::HardwareKey),
    ("/ironroot.api.agent.hardwarekey.v1.HardwareKey/NewX509SVID", Offer::HardwareKey),
    ("/grpc.health.v1.Health/Check", Offer::Health),
    ("/grpc.health.v1.Health/Watch", Offer::Health),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Offer::Reflection),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Offer::Reflection),
];

/// The same of the admin socket.
static ADMINISTRATION: [(&str, Offer); 10] = [
    ("/spire.agent.debug.v1.Debug/GetInfo", Offer::Administration),
    ("/ironroot.api.agent.status.v1.Status/GetStatus", Offer::Administration),
    ("/ironroot.api.agent.explain.v1.ExplainAny/ExplainProcess", Offer::Administration),
    ("/spire.api.agent.logger.v1.Logger/GetLogger", Offer::Administration),
    ("/spire.api.agent.logger.v1.Logger/SetLogLevel", Offer::Administration),
    ("/spire.api.agent.logger.v1.Logger/ResetLogLevel", Offer::Administration),
    ("/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/SubscribeToX509SVIDs", Offer::Delegated),
    ("/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/SubscribeToX509Bundles", Offer::Delegated),
    ("/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/FetchJWTSVIDs", Offer::Delegated),
    ("/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/SubscribeToJWTBundles", Offer::Delegated),
];

/// The same of the brokers' socket.
static BROKERS: [(&str, Offer); 6] = [
    ("/spiffe.broker.API/SubscribeToX509SVID", Offer::Broker),
    ("/spiffe.broker.API/SubscribeToX509Bundles", Offer::Broker),
    ("/spiffe.broker.API/FetchJWTSVID", Offer::Broker),
    ("/spiffe.broker.API/SubscribeToJWTBundles", Offer::Broker),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Offer::BrokersReflection),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Offer::BrokersReflection),
];

/// The paths of all methods, of whichever socket, each once.
pub(in crate::endpoints) fn methods() -> impl Iterator<Item = &'static str> {
    let of_brokers = BROKERS.iter().filter(|(_, offer)| *offer == Offer::Broker);
    METHODS.iter().chain(&ADMINISTRATION).chain(of_brokers).map(|(path, _)| *path)
}

/// What the method at `path` is counted under.
pub(in crate::endpoints) fn api_of(path: &str) -> Option<Api> {
    match path.strip_prefix('/')?.split_once('/')?.0 {
        "SpiffeWorkloadAPI" => Some(Api::Workload),
        "envoy.service.secret.v3.SecretDiscoveryService" => Some(Api::Sds),
        "spire.api.agent.delegatedidentity.v1.DelegatedIdentity" => Some(Api::DelegatedIdentity),
        "spire.agent.debug.v1.Debug" => Some(Api::Debug),
        "spire.api.agent.logger.v1.Logger" => Some(Api::Logger),
        _ => None,
    }
}

impl Offer {
    pub fn of(path: &str, socket: Socket) -> Result<Self, NotOffered> {
        let in_table =
            |table: &[(&str, Self)]| table.iter().find(|(method, _)| *method == path).map(|(_, offer)| *offer);
        let (api, wit_svids, secrets) = match socket {
            Socket::Administration => return in_table(&ADMINISTRATION).ok_or(NotOffered::UnknownToAdministration),
            Socket::Brokers => return in_table(&BROKERS).ok_or(NotOffered::UnknownToBrokers),
            Socket::Workloads { api, wit_svids, secrets } => (api, wit_svids, secrets),
        };
        //= WLA-12 SPIFFE Workload API 7: "calls to all RPCs defined by the WIT-SVID profile MUST return"
        match in_table(&METHODS).ok_or_else(|| NotOffered::because(path))? {
            Self::WorkloadApi | Self::JwtSvid | Self::WitSvid | Self::HardwareKey if !api => {
                Err(NotOffered::WorkloadApi)
            }
            Self::WitSvid if !wit_svids => Err(NotOffered::WitSvids),
            Self::Secrets if !secrets => Err(NotOffered::Secrets),
            offer => Ok(offer),
        }
    }

    /// The header that must be there, if one must, and be `true`. Source: SPIFFE_Workload_Endpoint.md §3; SPIRE exempts health checks,
    /// reflection to workloads, and Envoy, which sends no header of the kind unless its configuration says so.
    pub fn security_header(self) -> Option<&'static str> {
        match self {
            Self::WorkloadApi | Self::JwtSvid | Self::WitSvid | Self::HardwareKey | Self::Explain => {
                Some(WORKLOAD_HEADER)
            }
            //= BRK-01 SPIFFE Broker Endpoint 3: "every client request to the SPIFFE Broker Endpoint MUST include"
            Self::Broker | Self::BrokersReflection => Some(BROKER_HEADER),
            Self::Secrets | Self::Health | Self::Reflection | Self::Administration | Self::Delegated => None,
        }
    }

    pub fn bounds(self) -> Bounds {
        let (bytes, seconds) = match self {
            Self::WorkloadApi | Self::Explain | Self::Health | Self::Administration => {
                (PREFIX_BYTES + MAX_MESSAGE_BYTES, 5)
            }
            // A SPIFFE ID.
            Self::WitSvid => (PREFIX_BYTES + MAX_JWT_MESSAGE_BYTES, 5),
            Self::Delegated => (PREFIX_BYTES + MAX_DELEGATED_MESSAGE_BYTES, 5),
            // A certificate request.
            Self::HardwareKey => (PREFIX_BYTES + MAX_JWT_MESSAGE_BYTES, 5),
            Self::JwtSvid | Self::Broker => (PREFIX_BYTES + MAX_JWT_MESSAGE_BYTES, 5),
            // A conversation: a tool asks for one file after the other.
            Self::Reflection | Self::BrokersReflection => {
                return Bounds::Conversation { bytes: 64 * 1024, time: Duration::from_secs(60) };
            }
            Self::Secrets => return Bounds::EachMessage,
        };
        Bounds::Message { bytes, time: Duration::from_secs(seconds) }
    }
}

impl NotOffered {
    fn because(path: &str) -> Self {
        match path.rsplit_once('/') {
            Some(("/envoy.service.secret.v3.SecretDiscoveryService", "DeltaSecrets")) => Self::DeltaSecrets,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironroot_api::pb::{broker, workload};
    use prost::Message;
    use prost_types::FileDescriptorSet;

    const ALL: Socket = Socket::Workloads { api: true, wit_svids: true, secrets: true };

    /// Every method of the services that these sets describe.
    fn served(sets: &[&[u8]]) -> Vec<String> {
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
        let workloads = [workload::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
        let brokers = [broker::DESCRIPTORS];
        for (socket, table, sets) in
            [(ALL, &METHODS[..], &workloads[..]), (Socket::Brokers, &BROKERS[..], &brokers[..])]
        {
            let served = served(sets);
            for method in &served {
                assert!(Offer::of(method, socket).is_ok(), "{method}");
            }
            let is_described = |offer: Offer| !matches!(offer, Offer::Reflection | Offer::BrokersReflection);
            let without_reflection = table.iter().filter(|(_, offer)| is_described(*offer));
            assert!(without_reflection.clone().all(|(method, _)| served.contains(&(*method).to_owned())));
            assert_eq!(without_reflection.count(), served.len());
        }
    }

    //= WLA-12
    #[test]
    fn what_is_not_offered_is_named() {
        for (path, refusal) in [
            ("/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets", NotOffered::DeltaSecrets),
            ("/SpiffeWorkloadAPI/fetchX509SVID", NotOffered::Unknown),
            ("/spire.api.server.entry.v1.Entry/ListEntries", NotOffered::Unknown),
            ("", NotOffered::Unknown),
            ("*", NotOffered::Unknown),
        ] {
            assert_eq!(Offer::of(path, ALL), Err(refusal), "{path:?}");
        }
        let without = Socket::Workloads { api: true, wit_svids: false, secrets: true };
        for path in ["/SpiffeWorkloadAPI/FetchWITSVID", "/SpiffeWorkloadAPI/FetchWITBundles"] {
            assert_eq!(Offer::of(path, without), Err(NotOffered::WitSvids), "{path:?}");
        }
    }

    #[test]
    fn no_socket_offers_what_is_anothers() {
        for (method, offer) in ADMINISTRATION {
            assert_eq!(Offer::of(method, Socket::Administration), Ok(offer));
            assert_eq!(Offer::of(method, ALL), Err(NotOffered::Unknown));
        }
        for (method, _) in METHODS {
            assert_eq!(Offer::of(method, Socket::Administration), Err(NotOffered::UnknownToAdministration));
        }
        for (method, offer) in BROKERS {
            assert_eq!(Offer::of(method, Socket::Brokers), Ok(offer));
            assert_eq!(Offer::of(method, Socket::Administration), Err(NotOffered::UnknownToAdministration));
        }
        for (method, _) in METHODS.iter().filter(|(_, offer)| *offer != Offer::Reflection).chain(&ADMINISTRATION) {
            assert_eq!(Offer::of(method, Socket::Brokers), Err(NotOffered::UnknownToBrokers));
        }
        let paths: Vec<_> = methods().collect();
        assert!(paths.iter().enumerate().all(|(at, path)| !paths[..at].contains(path)), "each once");
    }

    #[test]
    fn an_api_that_is_switched_off_is_named_and_the_other_one_stays() {
        let (fetch, stream) = (METHODS[0], METHODS[7]);
        let only_workload = Socket::Workloads { api: true, wit_svids: true, secrets: false };
        assert_eq!(Offer::of(fetch.0, only_workload), Ok(fetch.1));
        assert_eq!(Offer::of(stream.0, only_workload), Err(NotOffered::Secrets));
        let only_secrets = Socket::Workloads { api: false, wit_svids: true, secrets: true };
        assert_eq!(Offer::of(stream.0, only_secrets), Ok(stream.1));
        for (method, offer) in METHODS {
            let needs = matches!(offer, Offer::WorkloadApi | Offer::JwtSvid | Offer::WitSvid | Offer::HardwareKey);
            assert_eq!(Offer::of(method, only_secrets), if needs { Err(NotOffered::WorkloadApi) } else { Ok(offer) });
        }
    }
}
