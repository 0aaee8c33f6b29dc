//! Generated wire types, in the module tree of their packages.
#![allow(missing_docs, reason = "generated; the .proto files carry the comments")]
#![allow(clippy::all, clippy::too_many_lines, reason = "generated")]

/// The SPIFFE Workload API; the standard gives it no package.
pub mod workload {
    include!(concat!(env!("OUT_DIR"), "/_.rs"));

    /// The services of the agent's socket for workloads and their messages, an encoded `google.protobuf.FileDescriptorSet`.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/workload.descriptors"));
}

/// SPIFFE's packages.
pub mod spiffe {
    /// The SPIFFE Broker API.
    pub mod broker {
        include!(concat!(env!("OUT_DIR"), "/spiffe.broker.rs"));

        /// Its service and messages, as in [`crate::pb::workload::DESCRIPTORS`].
        pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/broker.descriptors"));
    }
}

/// SPIRE's packages, as its API SDK has them.
pub mod spire {
    pub mod agent {
        pub mod debug {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/spire.agent.debug.v1.rs"));
            }
        }
    }
    pub mod api {
        pub mod agent {
            pub mod delegatedidentity {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.agent.delegatedidentity.v1.rs"));
                }
            }
            pub mod logger {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.agent.logger.v1.rs"));
                }
            }
        }
        pub mod types {
            include!(concat!(env!("OUT_DIR"), "/spire.api.types.rs"));
        }
        pub mod server {
            pub mod agent {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.agent.v1.rs"));
                }
            }
            pub mod bundle {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.bundle.v1.rs"));
                }
            }
            pub mod debug {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.debug.v1.rs"));
                }
            }
            pub mod entry {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.entry.v1.rs"));
                }
            }
            pub mod localauthority {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.localauthority.v1.rs"));
                }
            }
            pub mod logger {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.logger.v1.rs"));
                }
            }
            pub mod svid {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.svid.v1.rs"));
                }
            }
            pub mod trustdomain {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.trustdomain.v1.rs"));
                }
            }
        }
    }
}

/// Envoy's packages, as far as its secrets need them.
pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                include!(concat!(env!("OUT_DIR"), "/envoy.config.core.v3.rs"));
            }
        }
    }
    pub mod extensions {
        pub mod transport_sockets {
            pub mod tls {
                pub mod v3 {
                    include!(concat!(env!("OUT_DIR"), "/envoy.extensions.transport_sockets.tls.v3.rs"));
                }
            }
        }
    }
    pub mod service {
        pub mod discovery {
            pub mod v3 {
                include!(concat!(env!("OUT_DIR"), "/envoy.service.discovery.v3.rs"));
            }
        }
        pub mod secret {
            pub mod v3 {
                include!(concat!(env!("OUT_DIR"), "/envoy.service.secret.v3.rs"));
            }
        }
    }
    pub mod r#type {
        pub mod v3 {
            include!(concat!(env!("OUT_DIR"), "/envoy.r#type.v3.rs"));
        }
    }
}

/// What Envoy's packages and SPIFFE's take from Google's.
pub mod google {
    pub mod rpc {
        include!(concat!(env!("OUT_DIR"), "/google.rpc.rs"));
    }
}

/// What a collector of traces takes.
pub mod opentelemetry {
    pub mod proto {
        pub mod collector {
            pub mod trace {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/opentelemetry.proto.collector.trace.v1.rs"));
                }
            }
        }
        pub mod trace {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/opentelemetry.proto.trace.v1.rs"));
            }
        }
    }
}

/// The entry service as the server speaks it: entries in answers to agents are already encoded. Same wire form.
pub mod entry_encoded {
    include!(concat!(env!("OUT_DIR"), "/encoded/spire.api.server.entry.v1.rs"));
}

/// What SPIRE has no service for: the device registry, word of changes, what agents sign by themselves, the root above the CAs, heads of the issuance log, and how an agent or a server is.
pub mod ironroot {
    pub mod api {
        pub mod head {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/ironroot.api.head.v1.rs"));
            }
        }
        pub mod agent {
            pub mod explain {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/ironroot.api.agent.explain.v1.rs"));
                }
            }
            pub mod hardwarekey {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/ironroot.api.agent.hardwarekey.v1.rs"));
                }
            }
            pub mod status {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/ironroot.api.agent.status.v1.rs"));
                }
            }
        }
        pub mod server {
            pub mod change {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/ironroot.api.server.change.v1.rs"));
                }
            }
            pub mod device {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/ironroot.api.server.device.v1.rs"));
                }
            }
            pub mod issued {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/ironroot.api.server.issued.v1.rs"));
                }
            }
            pub mod root {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/ironroot.api.server.root.v1.rs"));
                }
            }
            pub mod status {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/ironroot.api.server.status.v1.rs"));
                }
            }
            pub mod pcrpolicy {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/ironroot.api.server.pcrpolicy.v1.rs"));
                }
            }
        }
    }
}

pub use envoy::config::core::v3 as envoy_core;
pub use envoy::extensions::transport_sockets::tls::v3 as envoy_tls;
pub use envoy::service::{discovery::v3 as discovery, secret::v3 as secret};
pub use envoy::r#type::v3 as envoy_type;
pub use google::rpc;
pub use ironroot::api::agent::{explain::v1 as explain, hardwarekey::v1 as hardware_key, status::v1 as agent_status};
pub use ironroot::api::head::v1 as issuance_head;
pub use ironroot::api::server::{
    change::v1 as change, device::v1 as device, issued::v1 as issued, pcrpolicy::v1 as pcr_policy, root::v1 as root,
    status::v1 as server_status,
};
pub use opentelemetry::proto::{collector::trace::v1 as trace_service, trace::v1 as trace};
pub use spiffe::broker;
pub use spire::agent::debug::v1 as agent_debug;
pub use spire::api::agent::{delegatedidentity::v1 as delegated, logger::v1 as agent_logger};
pub use spire::api::server::{
    agent::v1 as agent, bundle::v1 as bundle, debug::v1 as debug, entry::v1 as entry,
    localauthority::v1 as localauthority, logger::v1 as logger, svid::v1 as svid, trustdomain::v1 as trustdomain,
};
pub use spire::api::types;
