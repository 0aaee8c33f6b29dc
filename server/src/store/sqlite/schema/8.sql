-- Version 8: other trust domains. `seq` orders lists and is the page token.

-- `bundle`: encoded as facts/federation/bundle_row.rs has it.
CREATE TABLE federated_bundles (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    trust_domain TEXT NOT NULL UNIQUE,
    bundle BLOB NOT NULL
) STRICT;

-- Where a trust domain shows its bundle. `endpoint_spiffe_id` is NULL where the web's authorities prove that place.
CREATE TABLE federation_relationships (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    trust_domain TEXT NOT NULL UNIQUE,
    endpoint_url TEXT NOT NULL,
    endpoint_spiffe_id TEXT
) STRICT;

-- Which entries ask for which trust domain's bundle: a copy of what their terms say, filled after this.
CREATE TABLE entry_federations (
    trust_domain TEXT NOT NULL,
    entry_id TEXT NOT NULL,
    PRIMARY KEY (trust_domain, entry_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX entry_federations_by_entry ON entry_federations (entry_id);
CREATE TRIGGER entry_federations_end AFTER DELETE ON entries BEGIN
    DELETE FROM entry_federations WHERE entry_id = OLD.id;
END;
