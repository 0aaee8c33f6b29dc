//! The `plugins` block. Every plugin is built in; the block chooses and configures them.

use ironroot_shell::settings::Section;

use super::server_block::ServerBlock;
use super::{
    KeyManagersConfig, NodeAttestors, PROGRAM, UpstreamConfig, attestors, composers, data_store, key_managers, upstream,
};
use crate::store::Location;

pub(super) struct Plugins {
    pub(super) data_store: Location,
    pub(super) key_managers: KeyManagersConfig,
    pub(super) node_attestors: NodeAttestors,
    pub(super) upstream: Option<UpstreamConfig>,
    pub(super) unique_ids: bool,
}

/// Reads the block; the server's says whose the database is, and where unless this one does.
pub(super) fn read(plugins: &Section<'_>, server: Option<&ServerBlock>) -> Option<Plugins> {
    plugins.not_supported(PROGRAM, &["Notifier", "BundlePublisher"]);
    let unique_ids = composers::read(plugins);
    let data_store = data_store::read(plugins, server);
    let key_managers = key_managers::read(plugins, server);
    let node_attestors = attestors::read(plugins);
    let upstream = upstream::read(plugins, server);
    plugins.finish();
    Some(Plugins {
        data_store: data_store?,
        key_managers: key_managers?,
        node_attestors: node_attestors?,
        upstream: upstream?,
        unique_ids,
    })
}
