//! The lab: software TPMs, SoftHSM tokens, a toy TPM maker, and whole deployments of real binaries on real sockets.
//!
//! One emulator per test, own ports and directories, killed on drop. A missing emulator is a red test.

pub mod authority;
pub mod balancer;
pub mod cached;
pub mod ceremony;
pub mod child;
pub mod classic_peer;
pub mod deployment;
pub mod device_pki;
pub mod devid_pki;
pub mod envoy;
pub mod fleet_page;
pub mod handbook;
pub mod interposer;
pub mod jwt;
pub mod key_exchange;
pub mod machine;
pub mod manufacturer;
pub mod metrics;
pub mod mutual_tls;
pub mod openssl_peer;
pub mod pebble;
pub mod policy_operator;
pub mod prometheus;
pub mod quirk;
pub mod raw_http2;
pub mod rerun;
pub mod samples;
pub mod scripted_server;
pub mod server_client;
pub mod small_disk;
pub mod soak;
pub mod softhsm;
pub mod spire;
pub mod ssh_pki;
pub mod stand_in_web;
pub mod swtpm;
pub mod token_issuer;
pub mod toy_ca;
pub mod tpm2_pkcs11;
pub mod traffic;
pub mod upstream_files;
pub mod usage;
pub mod web_certificate;
pub mod workload_client;
