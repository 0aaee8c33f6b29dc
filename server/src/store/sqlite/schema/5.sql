-- Version 5: entries have a format of their own. `terms` is what the columns beside it do not say, encoded as
-- facts/entry/row.rs has it; until now it was a whole spire.api.types.Entry, which is converted after this.

ALTER TABLE entries RENAME COLUMN entry TO terms;
