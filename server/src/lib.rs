//! The Ironroot server: promises certificates to attested nodes and their workloads.
//!
//! ```text
//!  evidence ─► AttestedNode ─► agent SVID ─► AuthenticatedAgent ─► AuthorizedEntry ─► X.509-SVID
//!            node_attestation     ca          endpoints::caller       registry          ca
//! ```
//! Each arrow is a value with private fields that only the check before it can make. Only `store` touches the database;
//! only `endpoints` makes a `tonic::Status`; the CA's keys stay in their PKCS#11 token, unless the operator has them in a file.

pub mod acme;
pub mod backup;
pub mod bundle_client;
pub mod ca;
mod chance;
pub mod cli;
pub mod clock;
pub mod config;
pub mod confinement;
pub mod console;
pub mod devices;
pub mod endpoints;
pub mod facts;
pub mod federation;
pub mod issuance_log;
pub mod keys;
pub mod node_attestation;
pub mod older_state;
pub mod readiness;
pub mod registry;
pub mod rights;
pub mod run;
pub mod status;
pub mod store;
pub mod takeover;
pub mod telemetry;
pub mod token_exchange;
pub mod web_fetch;
pub mod web_shown;
