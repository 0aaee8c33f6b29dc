-- Version 13: of keys that servers below have published, by which SVID, and whether an entry stands behind them.

ALTER TABLE tier_authorities ADD COLUMN serial TEXT NOT NULL DEFAULT '';            -- decimal; empty: not noted, or of no server below
ALTER TABLE tier_authorities ADD COLUMN orphaned_at INTEGER NOT NULL DEFAULT 0;     -- since when there is no entry; 0 while there is one
