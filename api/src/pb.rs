//! Generated wire types, in the module tree of their packages.
#![allow(missing_docs, reason = "generated; the .proto files carry the comments")]
#![allow(clippy::all, reason = "generated")]

/// The SPIFFE Workload API; the standard gives it no package.
pub mod workload {
    include!(concat!(env!("OUT_DIR"), "/_.rs"));

    /// The service and its messages, an encoded `google.protobuf.FileDescriptorSet`.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/workload.descriptors"));
}

/// SPIRE's packages.
pub mod spire {
    /// `spire.api`
    pub mod api {
        /// `spire.api.types`
        pub mod types {
            include!(concat!(env!("OUT_DIR"), "/spire.api.types.rs"));
        }
        /// `spire.api.server`
        pub mod server {
            /// `spire.api.server.agent`
            pub mod agent {
                /// `spire.api.server.agent.v1`
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.agent.v1.rs"));
                }
            }
            /// `spire.api.server.bundle`
            pub mod bundle {
                /// `spire.api.server.bundle.v1`
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.bundle.v1.rs"));
                }
            }
            /// `spire.api.server.entry`
            pub mod entry {
                /// `spire.api.server.entry.v1`
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.entry.v1.rs"));
                }
            }
            /// `spire.api.server.svid`
            pub mod svid {
                /// `spire.api.server.svid.v1`
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.svid.v1.rs"));
                }
            }
        }
    }
}

/// The entry service as the server speaks it: entries in answers to agents are already encoded. Same wire form.
pub mod entry_encoded {
    include!(concat!(env!("OUT_DIR"), "/encoded/spire.api.server.entry.v1.rs"));
}

/// Ours.
pub mod ironroot {
    /// `ironroot.api`
    pub mod api {
        /// `ironroot.api.server`
        pub mod server {
            /// `ironroot.api.server.device`
            pub mod device {
                /// `ironroot.api.server.device.v1`
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/ironroot.api.server.device.v1.rs"));
                }
            }
        }
    }
}

pub use ironroot::api::server::device::v1 as device;
pub use spire::api::server::{agent::v1 as agent, bundle::v1 as bundle, entry::v1 as entry, svid::v1 as svid};
pub use spire::api::types;
