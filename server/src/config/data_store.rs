//! `DataStore`: where the facts are, and that they are this trust domain's.

use std::path::{Path, PathBuf};

use ironroot_shell::command_line::describe;
use ironroot_shell::settings::{Section, places};

use super::PROGRAM;
use super::server_block::ServerBlock;
use crate::store::Location;

/// Reads the block; without one the database is a file in the server's directory.
pub(super) fn read(plugins: &Section<'_>, server: Option<&ServerBlock>) -> Option<Location> {
    let location = read_location(plugins, server.map(|server| server.data_dir.as_path()));
    if let (Some(location), Some(server)) = (&location, server) {
        plugins.look("DataStore", || {
            let told = |error| format!("{location}: {}", describe(&error));
            location.recognise(&server.trust_domain).map_err(told)
        });
    }
    location
}

fn read_location(plugins: &Section<'_>, data_dir: Option<&Path>) -> Option<Location> {
    let default = || data_dir.map(|dir| Location::Sqlite(dir.join("datastore.sqlite3")));
    let Some(plugin) = plugins.only_plugin("DataStore") else { return default() };
    if plugin.name != "sql" {
        plugins.plugin_mistake("DataStore", &plugin, "not supported: use DataStore \"sql\"");
        return None;
    }
    let data = &plugin.data;
    data.parsed("database_type", |text| match text {
        "sqlite3" => Ok(()),
        _ => Err("not supported by ironroot-server yet: use sqlite3"),
    });
    let location = read_sqlite(data);
    let wrong = location.is_none() && data.has("connection_string");
    data.no_meaning(PROGRAM, &["conn_max_lifetime", "max_idle_conns", "max_open_conns"]);
    data.not_supported(
        PROGRAM,
        &["client_cert_path", "client_key_path", "disable_migration", "ro_connection_string", "root_ca_path"],
    );
    data.finish();
    if wrong { None } else { location.or_else(default) }
}

fn read_sqlite(data: &Section<'_>) -> Option<Location> {
    let path = data.parsed("connection_string", |text| match text {
        ":memory:" => Err("the registry must survive a restart: give the path of a file"),
        text if text.starts_with("file:") || text.contains('?') => {
            Err("give the path of a file, without \"file:\" and options")
        }
        text => Ok(PathBuf::from(text)),
    });
    if let Some(directory) = path.as_deref().and_then(Path::parent) {
        data.look("connection_string", || places::usable_directory(directory));
    }
    path.map(Location::Sqlite)
}
