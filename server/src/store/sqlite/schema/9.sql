-- Version 9: what devices have booted, and what they may have booted.

-- The newest states of each device, the last one with the greatest id. `facts`: JSON, as facts/device/boot.rs has it. Times are UNIX
-- seconds: when the state was proven for the first time since it was another one, and for the last time.
CREATE TABLE boots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ek_sha256 BLOB NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    facts TEXT NOT NULL
) STRICT;
CREATE INDEX boots_by_device ON boots (ek_sha256, id);

-- `policy`: JSON, as facts/pcr_policy.rs has it.
CREATE TABLE pcr_policies (
    name TEXT PRIMARY KEY,
    policy TEXT NOT NULL
) STRICT, WITHOUT ROWID;
