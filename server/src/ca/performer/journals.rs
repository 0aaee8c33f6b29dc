//! The journals of the data store: this server's, and those of others.

use ironroot_api::TrustDomain;
use tracing::info;

use crate::ca::journal::Journal;
use crate::ca::server_name::ServerName;
use crate::ca::{CaError, CaPolicy};
use crate::store::Store;

/// This server's row. A server that is given a name takes over what it wrote without one.
pub(super) async fn read_own(store: &Store, server: &ServerName) -> Result<Option<Vec<u8>>, CaError> {
    let own = store.ca_journal(server.as_str()).await?;
    if own.is_some() || server.is_unnamed() || !store.name_ca_journal(server.as_str()).await? {
        return Ok(own);
    }
    info!(%server, "the CA that this server had without a name goes on under its name");
    Ok(store.ca_journal(server.as_str()).await?)
}

/// What other servers have published in the data store.
pub(super) async fn read_others(store: &Store, policy: &CaPolicy) -> Result<Vec<Journal>, CaError> {
    let rows = store.ca_journals().await?;
    let others = rows.into_iter().filter(|(server, _)| *server != policy.server.as_str());
    let read = others.map(|(server, bytes)| {
        let server = server.parse().unwrap_or_default();
        Ok(Journal::from_bytes(&bytes, &policy.trust_domain, &server)?)
    });
    read.collect()
}

/// The same before anything is opened, of the journals that a file of SQLite holds; one that cannot be read is told at the start.
pub fn refuse_another_name(
    journals: &[(String, Vec<u8>)],
    trust_domain: &TrustDomain,
    server: &ServerName,
) -> Result<(), CaError> {
    // A server without a name is given one, and goes on with its CA.
    if journals.iter().any(|(name, _)| name == server.as_str() || name.is_empty()) {
        return Ok(());
    }
    let read = |(name, bytes): &(String, Vec<u8>)| {
        Journal::from_bytes(bytes, trust_domain, &name.parse().unwrap_or_default()).ok()
    };
    let found: Vec<_> =
        journals.iter().filter_map(read).filter(Journal::is_founded).map(|journal| journal.server()).collect();
    match found.is_empty() {
        true => Ok(()),
        false => Err(CaError::OtherServersCa { found, server: server.clone() }),
    }
}

/// A server without a CA founds one only where there is none, if the data store is locked by one server: another name is its own then,
/// from before that was changed. On a shared one each server has its own CA and name. What a start left behind that failed before it had
/// founded one is no CA.
pub(super) fn refuse_another_ca(store: &Store, others: &[Journal], policy: &CaPolicy) -> Result<(), CaError> {
    //= FLT-S7 server faults: "a data store holds one server's CA"
    let found: Vec<_> = others.iter().filter(|journal| journal.is_founded()).map(Journal::server).collect();
    if found.is_empty() || store.is_shared() {
        return Ok(());
    }
    Err(CaError::OtherServersCa { found, server: policy.server.clone() })
}
