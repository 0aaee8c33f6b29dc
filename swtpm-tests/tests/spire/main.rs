//! Beside SPIRE's own binaries, unchanged: its agent on our server, ours on its, and either on what the other has left.
//!
//! They run when whoever tests has SPIRE's binaries, otherwise each says that it was ignored and why:
//!   IRONROOT_SPIRE_BIN=/path/to/spire/bin scripts/test -p ironroot-swtpm-tests --test spire -- --ignored

mod agent_settings;
mod command_lines;
mod composers;
mod consumers;
mod deployment;
mod federation;
mod force_rotation;
mod gateway;
mod http_challenge;
mod import;
mod jwt;
mod jwt_server;
mod key_exchange;
mod matrix;
mod moving;
mod nested;
mod sshpop;
mod telemetry;
mod tpm_devid;
mod tpm_plugin;
mod two_servers;
mod wit;
mod x509pop;
