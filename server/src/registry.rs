//! In memory: entries and agents, and which entries an agent may serve.

mod authorized;

pub use authorized::AuthorizedEntry;
