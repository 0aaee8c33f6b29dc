//! `DataStore`: where the facts are, and that they are this trust domain's.

use std::path::PathBuf;

use ironroot_shell::command_line::describe;
use ironroot_shell::settings::{Section, places};

use super::PROGRAM;
use super::server_block::ServerBlock;
use crate::ca::{check_kept_name, refuse_another_name};
use crate::store::{Address, Location, StoreError};

/// Reads the block; without one the database is a file in the server's directory.
pub(super) fn read(plugins: &Section<'_>, server: Option<&ServerBlock>) -> Option<Location> {
    let location = read_location(plugins, server);
    if let (Some(location), Some(server)) = (&location, server) {
        plugins.look("DataStore", || look_at(location, plugins, server).map_err(|why| format!("{location}: {why}")));
    }
    location
}

/// What a start would refuse. A database that is out of reach may be there when the server starts.
fn look_at(location: &Location, plugins: &Section<'_>, server: &ServerBlock) -> Result<(), String> {
    let name = match location {
        Location::Postgres(_) => check_kept_name(&server.data_dir, &server.server_name).map_err(|why| describe(&why)),
        Location::Sqlite(_) => Ok(()),
    };
    match location.recognise(&server.trust_domain) {
        Err(why @ StoreError::Unreachable(_)) => {
            plugins.warn("DataStore", format!("{location} was not looked at: {}", describe(&why)));
            return name;
        }
        recognised => recognised.map_err(|why| describe(&why))?,
    }
    for file in location.open_to_others() {
        let path = file.display();
        plugins.warn("DataStore", format!("others have rights to {path}, which holds join tokens: chmod 600 {path}"));
    }
    let journals = location.ca_journals(&server.trust_domain).unwrap_or_default();
    refuse_another_name(&journals, &server.trust_domain, &server.server_name).map_err(|why| describe(&why))?;
    name
}

fn read_location(plugins: &Section<'_>, server: Option<&ServerBlock>) -> Option<Location> {
    let default = || server.map(|server| Location::Sqlite(server.data_dir.join("datastore.sqlite3")));
    let Some(plugin) = plugins.only_plugin("DataStore") else { return default() };
    if plugin.name != "sql" {
        plugins.plugin_mistake("DataStore", &plugin, "not supported: use DataStore \"sql\"");
        return None;
    }
    let data = &plugin.data;
    let location = match data.string("database_type").as_deref() {
        Some("postgres") => read_postgres(data, server),
        None | Some("sqlite3") => read_sqlite(data, server),
        Some(other) => {
            data.mistake(
                "database_type",
                format!("{other:?}: not supported by {PROGRAM} yet: use sqlite3 or postgres"),
            );
            None
        }
    };
    let wrong = location.is_none() && (data.has("connection_string") || data.has("database_type"));
    data.no_meaning(PROGRAM, &["conn_max_lifetime", "max_idle_conns", "max_open_conns"]);
    data.not_supported(
        PROGRAM,
        &["client_cert_path", "client_key_path", "disable_migration", "ro_connection_string", "root_ca_path"],
    );
    data.finish();
    if wrong { None } else { location.or_else(default) }
}

fn read_sqlite(data: &Section<'_>, server: Option<&ServerBlock>) -> Option<Location> {
    if data.has("database_type") && !data.has("connection_string") {
        data.mistake("connection_string", "must be set: the path of the database's file");
    }
    let path = data.parsed("connection_string", |text| match text {
        "" => Err("must be set: the path of the database's file"),
        ":memory:" => Err("the registry must survive a restart: give the path of a file"),
        text if text.starts_with("file:") || text.contains('?') => {
            Err("give the path of a file, without \"file:\" and options")
        }
        text => Ok(PathBuf::from(text)),
    });
    if let (Some(path), Some(server)) = (&path, server) {
        data.look("connection_string", || places::usable_file(path, &server.data_dir));
    }
    path.map(Location::Sqlite)
}

/// What is wrong with it is said without the text: a password may be in it.
fn read_postgres(data: &Section<'_>, server: Option<&ServerBlock>) -> Option<Location> {
    let Some(text) = data.string("connection_string") else {
        data.mistake("connection_string", "missing: postgres needs one, such as \"host=db.example.org user=ironroot dbname=ironroot sslmode=verify-full sslrootcert=FILE\"");
        return None;
    };
    if server.is_some_and(|server| server.server_name.is_unnamed()) {
        data.mistake(
            "database_type",
            "several servers may share a database of PostgreSQL: give each a server_name (in the server block)",
        );
    }
    let exchanges = server.map(|server| server.key_exchanges).unwrap_or_default();
    let address = Address::parse(&text, exchanges);
    let address = address.map_err(|why| data.mistake("connection_string", why.to_string())).ok()?;
    data.look("connection_string", || address.files_are_good());
    Some(Location::Postgres(Box::new(address)))
}
