//! SPIRE's tables as rows: texts, numbers and times as they stand there.

use std::collections::HashMap;

use rusqlite::types::FromSql;
use rusqlite::{Connection, Row};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::SCHEMA_VERSIONS;
use super::error::SpireStoreError;

/// Most rows of entries, agents, tokens, bundles and relationships, each. As many entries as one of our servers holds in memory.
pub const MAX_ROWS: i64 = 1_000_000;
/// Most rows of what hangs on them: selectors, DNS names, trust domains.
pub const MAX_DETAIL_ROWS: i64 = 20 * MAX_ROWS;
/// Longest text, bytes: a selector's value is the longest.
pub const MAX_TEXT_BYTES: i64 = 64 * 1024;
/// Longest bundle or journal, bytes. Source: SPIRE's models, MEDIUMBLOB.
pub const MAX_BLOB_BYTES: i64 = 16 * 1024 * 1024;
/// Most servers that share a database: each has a journal.
pub const MAX_JOURNALS: i64 = 64;

/// All that a server of SPIRE's has in its database, but for what only it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "SPIRE's tables by their nouns")]
pub struct SpireFacts {
    /// The schema's version.
    pub version: i64,
    /// What SPIRE calls itself that wrote it last.
    pub code_version: String,
    pub bundles: Vec<SpireBundle>,
    pub journals: Vec<SpireJournal>,
    pub entries: Vec<SpireEntry>,
    pub agents: Vec<SpireAgent>,
    pub tokens: Vec<SpireToken>,
    pub relationships: Vec<SpireRelationship>,
}

/// A row of `bundles`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpireBundle {
    /// `spiffe://<name>`.
    pub trust_domain: String,
    /// A `spire.common.Bundle`.
    pub data: Vec<u8>,
}

/// A row of `ca_journals`: one server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpireJournal {
    /// Its row.
    pub row: i64,
    /// `Entries`.
    pub data: Vec<u8>,
}

/// A row of `registered_entries` and what hangs on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "SPIRE's columns by their names")]
pub struct SpireEntry {
    pub entry_id: String,
    pub spiffe_id: String,
    pub parent_id: String,
    /// Seconds.
    pub x509_svid_ttl: i64,
    /// Seconds.
    pub jwt_svid_ttl: i64,
    pub admin: bool,
    pub downstream: bool,
    pub store_svid: bool,
    /// UNIX seconds; 0: never.
    pub expiry: i64,
    pub revision_number: i64,
    /// UNIX seconds.
    pub created_at: i64,
    pub hint: String,
    /// `AdditionalAttributes`; empty if there are none.
    pub additional_attributes: Vec<u8>,
    /// Type and value.
    pub selectors: Vec<(String, String)>,
    /// In SPIRE's order: the first is the common name.
    pub dns_names: Vec<String>,
    /// `spiffe://<name>` each.
    pub federates_with: Vec<String>,
}

/// A row of `attested_node_entries`, and its selectors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "SPIRE's columns by their names")]
pub struct SpireAgent {
    pub spiffe_id: String,
    pub data_type: String,
    /// Decimal; empty if it is banned.
    pub serial_number: String,
    /// UNIX seconds.
    pub expires_at: i64,
    /// Decimal; empty if no renewal is pending.
    pub new_serial_number: String,
    /// UNIX seconds; 0 if no renewal is pending.
    pub new_expires_at: i64,
    pub can_reattest: bool,
    pub agent_version: String,
    pub selectors: Vec<(String, String)>,
}

/// A row of `join_tokens`.
#[derive(Clone, PartialEq, Eq)]
pub struct SpireToken {
    /// A secret.
    pub token: String,
    /// UNIX seconds.
    pub expiry: i64,
}

impl std::fmt::Debug for SpireToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SpireToken(until {})", self.expiry)
    }
}

/// A row of `federated_trust_domains`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "SPIRE's columns by their names")]
pub struct SpireRelationship {
    /// Its name, without `spiffe://`.
    pub trust_domain: String,
    pub bundle_endpoint_url: String,
    pub bundle_endpoint_profile: String,
    pub endpoint_spiffe_id: String,
}

/// Reads all of it, in one transaction, once each table is known to be within its bounds.
pub(super) fn read(connection: &Connection) -> Result<SpireFacts, SpireStoreError> {
    let transaction = connection.unchecked_transaction()?;
    let (version, code_version) = read_version(&transaction)?;
    for (table, columns, most_rows, most_bytes) in TABLES {
        check_bounds(&transaction, table, columns, *most_rows, *most_bytes)?;
    }
    Ok(SpireFacts {
        version,
        code_version,
        bundles: bundles(&transaction)?,
        journals: journals(&transaction)?,
        entries: entries(&transaction, version)?,
        agents: agents(&transaction, version)?,
        tokens: tokens(&transaction)?,
        relationships: relationships(&transaction)?,
    })
}

fn read_version(connection: &Connection) -> Result<(i64, String), SpireStoreError> {
    let rows: i64 = connection.query_row("SELECT count(*) FROM migrations", [], |row| row.get(0))?;
    if rows != 1 {
        return Err(SpireStoreError::VersionRows(rows));
    }
    let select = "SELECT version, substr(coalesce(code_version, ''), 1, 64) FROM migrations";
    let (version, code_version): (i64, String) =
        connection.query_row(select, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    match SCHEMA_VERSIONS.contains(&version) {
        true => Ok((version, code_version)),
        false => Err(SpireStoreError::Version { found: version, code_version }),
    }
}

/// Each table that is read: its long columns, and the bounds of its rows and of those.
const TABLES: &[(&str, &[&str], i64, i64)] = &[
    ("bundles", &["data"], MAX_ROWS, MAX_BLOB_BYTES),
    ("bundles", &["trust_domain"], MAX_ROWS, MAX_TEXT_BYTES),
    ("ca_journals", &["data"], MAX_JOURNALS, MAX_BLOB_BYTES),
    ("registered_entries", &["entry_id", "spiffe_id", "parent_id", "hint"], MAX_ROWS, MAX_TEXT_BYTES),
    ("selectors", &["type", "value"], MAX_DETAIL_ROWS, MAX_TEXT_BYTES),
    ("dns_names", &["value"], MAX_DETAIL_ROWS, MAX_TEXT_BYTES),
    ("federated_registration_entries", &[], MAX_DETAIL_ROWS, MAX_TEXT_BYTES),
    (
        "attested_node_entries",
        &["spiffe_id", "data_type", "serial_number", "new_serial_number"],
        MAX_ROWS,
        MAX_TEXT_BYTES,
    ),
    ("node_resolver_map_entries", &["spiffe_id", "type", "value"], MAX_DETAIL_ROWS, MAX_TEXT_BYTES),
    ("join_tokens", &["token"], MAX_ROWS, MAX_TEXT_BYTES),
    (
        "federated_trust_domains",
        &["trust_domain", "bundle_endpoint_url", "endpoint_spiffe_id"],
        MAX_ROWS,
        MAX_TEXT_BYTES,
    ),
];

fn check_bounds(
    connection: &Connection,
    table: &'static str,
    columns: &[&str],
    most_rows: i64,
    most_bytes: i64,
) -> Result<(), SpireStoreError> {
    let rows: i64 = connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
    if rows > most_rows {
        return Err(SpireStoreError::TooManyRows { table, rows, most: most_rows });
    }
    for column in columns {
        let longest = format!("SELECT coalesce(max(length(CAST({column} AS BLOB))), 0) FROM {table}");
        let bytes: i64 = connection.query_row(&longest, [], |row| row.get(0))?;
        if bytes > most_bytes {
            return Err(SpireStoreError::TooLong { table, bytes, most: most_bytes });
        }
    }
    Ok(())
}

/// Reads rows that begin with their number. A value of another type than SPIRE's is told with it.
fn each<T>(
    connection: &Connection,
    table: &'static str,
    select: &str,
    read: impl Fn(&Columns<'_, '_>) -> Result<T, SpireStoreError>,
) -> Result<Vec<T>, SpireStoreError> {
    let mut statement = connection.prepare(select)?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(&Columns { table, number: row.get(0)?, row })?);
    }
    Ok(all)
}

struct Columns<'r, 's> {
    table: &'static str,
    number: i64,
    row: &'r Row<'s>,
}

impl Columns<'_, '_> {
    fn get<T: FromSql>(&self, column: usize) -> Result<T, SpireStoreError> {
        self.row.get(column).map_err(|error| self.damaged(error.to_string()))
    }

    /// A time as SPIRE's engine writes it, `2026-11-25 21:16:17.204657828+00:00`, UNIX seconds, rounded as SPIRE does.
    fn time(&self, column: usize) -> Result<i64, SpireStoreError> {
        let text: Option<String> = self.get(column)?;
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(0) };
        parse_time(&text).ok_or_else(|| self.damaged(format!("{text:?} is no time")))
    }

    fn damaged(&self, reason: String) -> SpireStoreError {
        SpireStoreError::Row { table: self.table, row: self.number, reason }
    }
}

/// Source: mattn/go-sqlite3, SQLiteTimestampFormats: a blank or a T between date and time, and no zone is UTC.
fn parse_time(text: &str) -> Option<i64> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let has_zone = time.ends_with('Z') || time.contains('+') || time.contains('-');
    let zone = if has_zone { "" } else { "Z" };
    let time = OffsetDateTime::parse(&format!("{date}T{time}{zone}"), &Rfc3339).ok()?;
    Some(time.unix_timestamp() + i64::from(time.nanosecond() >= 500_000_000))
}

fn bundles(connection: &Connection) -> Result<Vec<SpireBundle>, SpireStoreError> {
    each(connection, "bundles", "SELECT id, trust_domain, data FROM bundles ORDER BY id", |row| {
        Ok(SpireBundle { trust_domain: row.get(1)?, data: row.get::<Option<Vec<u8>>>(2)?.unwrap_or_default() })
    })
}

fn journals(connection: &Connection) -> Result<Vec<SpireJournal>, SpireStoreError> {
    each(connection, "ca_journals", "SELECT id, data FROM ca_journals ORDER BY id", |row| {
        Ok(SpireJournal { row: row.number, data: row.get::<Option<Vec<u8>>>(1)?.unwrap_or_default() })
    })
}

fn entries(connection: &Connection, version: i64) -> Result<Vec<SpireEntry>, SpireStoreError> {
    let attributes = if version >= 25 { "additional_attributes" } else { "NULL" };
    let select = format!(
        "SELECT id, entry_id, spiffe_id, parent_id, ttl, jwt_svid_ttl, coalesce(admin, 0), coalesce(downstream, 0), \
         coalesce(store_svid, 0), coalesce(expiry, 0), coalesce(revision_number, 0), created_at, coalesce(hint, ''), {attributes} \
         FROM registered_entries ORDER BY id"
    );
    let rows = each(connection, "registered_entries", &select, |row| {
        let attributes: Option<Vec<u8>> = row.get(13)?;
        Ok((
            row.number,
            SpireEntry {
                entry_id: row.get(1)?,
                spiffe_id: row.get(2)?,
                parent_id: row.get(3)?,
                x509_svid_ttl: row.get::<Option<i64>>(4)?.unwrap_or_default(),
                jwt_svid_ttl: row.get::<Option<i64>>(5)?.unwrap_or_default(),
                admin: row.get(6)?,
                downstream: row.get(7)?,
                store_svid: row.get(8)?,
                expiry: row.get(9)?,
                revision_number: row.get(10)?,
                created_at: row.time(11)?,
                hint: row.get(12)?,
                additional_attributes: attributes.unwrap_or_default(),
                ..SpireEntry::default()
            },
        ))
    })?;
    let places: HashMap<i64, usize> = rows.iter().enumerate().map(|(place, (row, _))| (*row, place)).collect();
    let mut entries: Vec<SpireEntry> = rows.into_iter().map(|(_, entry)| entry).collect();
    // Rows of entries that were deleted may be left: they hang on nothing.
    let selectors = "SELECT id, registered_entry_id, type, value FROM selectors ORDER BY id";
    for (entry, kind, value) in
        each(connection, "selectors", selectors, |row| Ok((row.get(1)?, row.get(2)?, row.get(3)?)))?
    {
        hang(&places, &mut entries, entry, |entry| entry.selectors.push((kind, value)));
    }
    let dns_names = "SELECT id, registered_entry_id, value FROM dns_names ORDER BY id";
    for (entry, name) in each(connection, "dns_names", dns_names, |row| Ok((row.get(1)?, row.get(2)?)))? {
        hang(&places, &mut entries, entry, |entry| entry.dns_names.push(name));
    }
    let federates = "SELECT f.rowid, f.registered_entry_id, b.trust_domain FROM federated_registration_entries f \
                     JOIN bundles b ON b.id = f.bundle_id ORDER BY b.id";
    let read = |row: &Columns<'_, '_>| Ok((row.get(1)?, row.get(2)?));
    for (entry, domain) in each(connection, "federated_registration_entries", federates, read)? {
        hang(&places, &mut entries, entry, |entry| entry.federates_with.push(domain));
    }
    Ok(entries)
}

fn hang(places: &HashMap<i64, usize>, entries: &mut [SpireEntry], row: i64, hang: impl FnOnce(&mut SpireEntry)) {
    if let Some(entry) = places.get(&row).and_then(|place| entries.get_mut(*place)) {
        hang(entry);
    }
}

fn agents(connection: &Connection, version: i64) -> Result<Vec<SpireAgent>, SpireStoreError> {
    let agent_version = if version >= 24 { "coalesce(agent_version, '')" } else { "''" };
    let select = format!(
        "SELECT id, spiffe_id, coalesce(data_type, ''), coalesce(serial_number, ''), expires_at, coalesce(new_serial_number, ''), \
         new_expires_at, coalesce(can_reattest, 0), {agent_version} FROM attested_node_entries ORDER BY id"
    );
    let mut agents = each(connection, "attested_node_entries", &select, |row| {
        Ok(SpireAgent {
            spiffe_id: row.get(1)?,
            data_type: row.get(2)?,
            serial_number: row.get(3)?,
            expires_at: row.time(4)?,
            new_serial_number: row.get(5)?,
            new_expires_at: row.time(6)?,
            can_reattest: row.get(7)?,
            agent_version: row.get(8)?,
            selectors: Vec::new(),
        })
    })?;
    let places: HashMap<String, usize> =
        agents.iter().enumerate().map(|(place, agent)| (agent.spiffe_id.clone(), place)).collect();
    let selectors = "SELECT id, spiffe_id, type, value FROM node_resolver_map_entries ORDER BY id";
    let read = |row: &Columns<'_, '_>| Ok((row.get::<String>(1)?, row.get(2)?, row.get(3)?));
    for (id, kind, value) in each(connection, "node_resolver_map_entries", selectors, read)? {
        if let Some(agent) = places.get(&id).and_then(|place| agents.get_mut(*place)) {
            agent.selectors.push((kind, value));
        }
    }
    Ok(agents)
}

fn tokens(connection: &Connection) -> Result<Vec<SpireToken>, SpireStoreError> {
    each(connection, "join_tokens", "SELECT id, token, coalesce(expiry, 0) FROM join_tokens ORDER BY id", |row| {
        Ok(SpireToken { token: row.get(1)?, expiry: row.get(2)? })
    })
}

fn relationships(connection: &Connection) -> Result<Vec<SpireRelationship>, SpireStoreError> {
    let select = "SELECT id, trust_domain, coalesce(bundle_endpoint_url, ''), coalesce(bundle_endpoint_profile, ''), \
                  coalesce(endpoint_spiffe_id, '') FROM federated_trust_domains ORDER BY id";
    each(connection, "federated_trust_domains", select, |row| {
        Ok(SpireRelationship {
            trust_domain: row.get(1)?,
            bundle_endpoint_url: row.get(2)?,
            bundle_endpoint_profile: row.get(3)?,
            endpoint_spiffe_id: row.get(4)?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::parse_time;

    #[test]
    fn times_are_read_as_the_go_driver_writes_them_and_rounded_as_spire_does() {
        for (text, unix) in [
            ("2026-11-25 21:16:17.204657828+00:00", 1_795_641_377),
            ("2026-11-25 21:16:17.504657828+00:00", 1_795_641_378),
            ("2026-11-25 21:16:17+00:00", 1_795_641_377),
            ("2026-11-25 22:16:17+01:00", 1_795_641_377),
            ("2026-11-25T21:16:17Z", 1_795_641_377),
            ("2026-11-25 21:16:17", 1_795_641_377),
            ("0001-01-01 00:00:00+00:00", -62_135_596_800),
        ] {
            assert_eq!(parse_time(text), Some(unix), "{text}");
        }
        for wrong in ["", "now", "2026-11-25", "2026-13-25 21:16:17", "99999-01-01 00:00:00"] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }
}
