//! What the server keeps: agents, devices, registration entries, and what it knows of other trust domains; their bounds and their wire
//! form.
//!
//! The lowest room: the store writes these values and reads them back, registry and devices decide about them, endpoints and
//! the command line show them. Nothing here decides who may do what.

pub mod agent;
pub mod device;
pub mod entry;
pub mod federation;
pub mod ima_policy;
pub mod mask;
pub mod older_state;
pub mod page;
pub mod pcr_policy;
pub mod through;
pub mod tier;
