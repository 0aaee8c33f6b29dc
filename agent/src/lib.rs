//! The Ironroot agent: proves the device and serves SPIFFE identities to its local processes, online and offline.
//!
//! ```text
//!  Tpm ─► sealed_cache ─┐                                   ┌─► endpoints::workload_api ─► workloads
//!                       ├─► Identities (one watch channel) ─┤
//!  server ─► sync ──────┘                                   └─► sealed_cache (coalesced writes)
//! ```
//! One writer publishes immutable snapshots; readers never ask back. The Workload API knows neither server, TPM nor cache.

pub mod agent_key;
pub mod agent_record;
pub mod bundle_source;
pub mod cli;
pub mod config;
pub mod confinement;
pub mod counted;
pub mod durable_file;
pub mod endpoints;
pub mod federated_bundles;
pub mod hardware_keys;
pub mod identities;
pub mod issuance_heads;
pub mod jwt_svids;
pub mod local_authority;
pub mod node_attestation;
pub mod own_certificate;
mod pem;
pub mod report;
pub mod requests;
pub mod run;
pub mod sealed_cache;
pub mod server_answers;
pub mod server_channel;
pub mod server_number;
pub mod sync;
pub mod telemetry;
pub mod token;
pub mod trusted_time;
pub mod union;
pub mod upstreams;
