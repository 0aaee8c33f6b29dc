-- Version 2. Why a device is banned, and what spoke against a chip.

-- JSON: when, why, and what was seen; NULL if it is not banned, or was before this version.
ALTER TABLE devices ADD COLUMN ban TEXT;

-- A chip that was proven with a clock or counters older than those it had shown before: a copy, or one that was set back.
-- `seen_at`: UNIX seconds. The clock columns are its own words then. A row ends with its device.
CREATE TABLE contradictions (
    ek_sha256 BLOB PRIMARY KEY,
    seen_at INTEGER NOT NULL,
    address TEXT NOT NULL,
    clock_ms INTEGER NOT NULL,
    reset_count INTEGER NOT NULL,
    restart_count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
