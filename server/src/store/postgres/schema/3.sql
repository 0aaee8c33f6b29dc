-- Version 3: what schema 13 of SQLite's files has. Servers of version 2 go on beside it: they leave both as they are.

ALTER TABLE tier_authorities ADD COLUMN serial TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE tier_authorities ADD COLUMN orphaned_at BIGINT NOT NULL DEFAULT 0;
