//! SPIRE's tables as rows: texts, numbers and times as they stand there.

use std::collections::HashMap;

use super::SCHEMA_VERSIONS;
use super::error::SpireStoreError;
use super::tables::{Columns, Tables};
use crate::store::sql::Session;

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

/// Reads all of it, in the transaction that `session` is in, once each table is known to be within its bounds.
pub(super) fn read(session: Session<'_>) -> Result<SpireFacts, SpireStoreError> {
    let tables = Tables(session);
    let (version, code_version) = read_version(tables)?;
    for (table, columns, most_rows, most_bytes) in TABLES {
        check_bounds(tables, table, columns, *most_rows, *most_bytes)?;
    }
    Ok(SpireFacts {
        version,
        code_version,
        bundles: bundles(tables)?,
        journals: journals(tables)?,
        entries: entries(tables, version)?,
        agents: agents(tables, version)?,
        tokens: tokens(tables)?,
        relationships: relationships(tables)?,
    })
}

fn read_version(tables: Tables<'_>) -> Result<(i64, String), SpireStoreError> {
    let rows: i64 = tables.one("SELECT count(*) FROM migrations")?;
    if rows != 1 {
        return Err(SpireStoreError::VersionRows(rows));
    }
    let version: i64 = tables.one(&format!("SELECT {} FROM migrations", tables.number("version")))?;
    let code_version = tables.one("SELECT substr(coalesce(code_version, ''), 1, 64) FROM migrations")?;
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
    tables: Tables<'_>,
    table: &'static str,
    columns: &[&str],
    most_rows: i64,
    most_bytes: i64,
) -> Result<(), SpireStoreError> {
    let rows: i64 = tables.one(&format!("SELECT count(*) FROM {table}"))?;
    if rows > most_rows {
        return Err(SpireStoreError::TooManyRows { table, rows, most: most_rows });
    }
    for column in columns {
        let bytes: i64 = tables.one(&format!("SELECT {} FROM {table}", tables.longest(column)))?;
        if bytes > most_bytes {
            return Err(SpireStoreError::TooLong { table, bytes, most: most_bytes });
        }
    }
    Ok(())
}

fn bundles(tables: Tables<'_>) -> Result<Vec<SpireBundle>, SpireStoreError> {
    let select = format!("SELECT {}, trust_domain, data FROM bundles ORDER BY id", tables.number("id"));
    tables.each("bundles", &select, |row| {
        Ok(SpireBundle { trust_domain: row.get(1)?, data: row.get::<Option<Vec<u8>>>(2)?.unwrap_or_default() })
    })
}

fn journals(tables: Tables<'_>) -> Result<Vec<SpireJournal>, SpireStoreError> {
    let select = format!("SELECT {}, data FROM ca_journals ORDER BY id", tables.number("id"));
    tables.each("ca_journals", &select, |row| {
        Ok(SpireJournal { row: row.number, data: row.get::<Option<Vec<u8>>>(1)?.unwrap_or_default() })
    })
}

fn entries(tables: Tables<'_>, version: i64) -> Result<Vec<SpireEntry>, SpireStoreError> {
    let attributes = if version >= 25 { "additional_attributes" } else { tables.no_bytes() };
    let number = |column: &str| tables.number(column);
    let (id, ttl, jwt_svid_ttl, expiry) = (number("id"), number("ttl"), number("jwt_svid_ttl"), number("expiry"));
    let (admin, downstream, store_svid) = (tables.flag("admin"), tables.flag("downstream"), tables.flag("store_svid"));
    let (revision, created_at) = (number("revision_number"), tables.time("created_at"));
    let select = format!(
        "SELECT {id}, entry_id, spiffe_id, parent_id, {ttl}, {jwt_svid_ttl}, {admin}, {downstream}, {store_svid}, {expiry}, {revision}, \
         {created_at}, coalesce(hint, ''), {attributes} FROM registered_entries ORDER BY id"
    );
    let rows = tables.each("registered_entries", &select, |row| {
        let attributes: Option<Vec<u8>> = row.get(13)?;
        Ok((
            row.number,
            SpireEntry {
                entry_id: row.get(1)?,
                spiffe_id: row.get(2)?,
                parent_id: row.get(3)?,
                x509_svid_ttl: row.get(4)?,
                jwt_svid_ttl: row.get(5)?,
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
    let of_entry = number("registered_entry_id");
    let selectors = format!("SELECT {id}, {of_entry}, type, value FROM selectors ORDER BY id");
    for (entry, kind, value) in
        tables.each("selectors", &selectors, |row| Ok((row.get(1)?, row.get(2)?, row.get(3)?)))?
    {
        hang(&places, &mut entries, entry, |entry| entry.selectors.push((kind, value)));
    }
    let dns_names = format!("SELECT {id}, {of_entry}, value FROM dns_names ORDER BY id");
    for (entry, name) in tables.each("dns_names", &dns_names, |row| Ok((row.get(1)?, row.get(2)?)))? {
        hang(&places, &mut entries, entry, |entry| entry.dns_names.push(name));
    }
    // A row of this table has no number of its own.
    let federates = format!(
        "SELECT {of_entry}, {of_entry}, b.trust_domain FROM federated_registration_entries f JOIN bundles b ON b.id = f.bundle_id \
         ORDER BY b.id"
    );
    let read = |row: &Columns<'_>| Ok((row.get(1)?, row.get(2)?));
    for (entry, domain) in tables.each("federated_registration_entries", &federates, read)? {
        hang(&places, &mut entries, entry, |entry| entry.federates_with.push(domain));
    }
    Ok(entries)
}

fn hang(places: &HashMap<i64, usize>, entries: &mut [SpireEntry], row: i64, hang: impl FnOnce(&mut SpireEntry)) {
    if let Some(entry) = places.get(&row).and_then(|place| entries.get_mut(*place)) {
        hang(entry);
    }
}

fn agents(tables: Tables<'_>, version: i64) -> Result<Vec<SpireAgent>, SpireStoreError> {
    let agent_version = if version >= 24 { "coalesce(agent_version, '')" } else { "''" };
    let (id, can_reattest) = (tables.number("id"), tables.flag("can_reattest"));
    let (expires_at, new_expires_at) = (tables.time("expires_at"), tables.time("new_expires_at"));
    let select = format!(
        "SELECT {id}, spiffe_id, coalesce(data_type, ''), coalesce(serial_number, ''), {expires_at}, coalesce(new_serial_number, ''), \
         {new_expires_at}, {can_reattest}, {agent_version} FROM attested_node_entries ORDER BY id"
    );
    let mut agents = tables.each("attested_node_entries", &select, |row| {
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
    let selectors = format!("SELECT {id}, spiffe_id, type, value FROM node_resolver_map_entries ORDER BY id");
    let read = |row: &Columns<'_>| Ok((row.get::<String>(1)?, row.get(2)?, row.get(3)?));
    for (id, kind, value) in tables.each("node_resolver_map_entries", &selectors, read)? {
        if let Some(agent) = places.get(&id).and_then(|place| agents.get_mut(*place)) {
            agent.selectors.push((kind, value));
        }
    }
    Ok(agents)
}

fn tokens(tables: Tables<'_>) -> Result<Vec<SpireToken>, SpireStoreError> {
    let (id, expiry) = (tables.number("id"), tables.number("expiry"));
    let select = format!("SELECT {id}, token, {expiry} FROM join_tokens ORDER BY id");
    tables.each("join_tokens", &select, |row| Ok(SpireToken { token: row.get(1)?, expiry: row.get(2)? }))
}

fn relationships(tables: Tables<'_>) -> Result<Vec<SpireRelationship>, SpireStoreError> {
    let id = tables.number("id");
    let select = format!(
        "SELECT {id}, trust_domain, coalesce(bundle_endpoint_url, ''), coalesce(bundle_endpoint_profile, ''), \
         coalesce(endpoint_spiffe_id, '') FROM federated_trust_domains ORDER BY id"
    );
    tables.each("federated_trust_domains", &select, |row| {
        Ok(SpireRelationship {
            trust_domain: row.get(1)?,
            bundle_endpoint_url: row.get(2)?,
            bundle_endpoint_profile: row.get(3)?,
            endpoint_spiffe_id: row.get(4)?,
        })
    })
}
