-- Version 10: what speaks for it that this database is older than what was here before, until that is settled.

-- One row at most. `evidence`: JSON, as facts/older_state.rs has it. Times are UNIX seconds: when it was noticed, and when the operator
-- has accepted it; NULL: issuing waits for that.
CREATE TABLE older_state (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    noticed_at INTEGER NOT NULL,
    evidence TEXT NOT NULL,
    accepted_at INTEGER
) STRICT;
