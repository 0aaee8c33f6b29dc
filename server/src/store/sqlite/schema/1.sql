-- Version 1. Times are UNIX seconds, 0 means none. `seq` orders lists and is the page token.

CREATE TABLE about (
    trust_domain TEXT NOT NULL
) STRICT;

-- `entry` is a whole spire.api.types.Entry; the columns beside it are copies to look it up by.
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    spiffe_id TEXT NOT NULL,
    parent_id TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    entry BLOB NOT NULL
) STRICT;
CREATE INDEX entries_by_ids ON entries (spiffe_id, parent_id);
CREATE INDEX entries_by_expiry ON entries (expires_at) WHERE expires_at <> 0;

-- `selectors`: one type:value per line. `serial`, `new_serial`: decimal, empty for none.
CREATE TABLE agents (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    spiffe_id TEXT NOT NULL UNIQUE,
    attestation_type TEXT NOT NULL,
    serial TEXT NOT NULL,
    not_after INTEGER NOT NULL,
    new_serial TEXT NOT NULL,
    new_not_after INTEGER NOT NULL,
    can_reattest INTEGER NOT NULL,
    banned INTEGER NOT NULL,
    selectors TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    ek_sha256 BLOB
) STRICT;

CREATE TABLE join_tokens (
    token TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX join_tokens_by_expiry ON join_tokens (expires_at);

-- `labels`: a JSON object of strings. The clock columns are the TPM's own words at its last attestation.
CREATE TABLE devices (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    ek_sha256 BLOB NOT NULL UNIQUE,
    serial TEXT NOT NULL,
    labels TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'enrolled', 'banned')),
    manufacturer TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    last_attested_at INTEGER NOT NULL,
    agent_id TEXT,
    clock_ms INTEGER,
    reset_count INTEGER,
    restart_count INTEGER,
    clock_safe INTEGER
) STRICT;

CREATE INDEX devices_pending ON devices (state) WHERE state = 'pending';

CREATE TABLE ca_journal (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    journal BLOB NOT NULL
) STRICT;
