-- Version 3: a log of changes, which memory follows.

-- The counter of changes. Revisions have no gaps and come in the order of commits.
CREATE TABLE revision (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO revision (only, revision) VALUES (1, 1);

-- A row for each fact that a transaction changed, written last in it; `kind` and `key` say which fact. `id` is random, the
-- same for the changes of one commit: a revision that is issued again after a restored backup has another. There is always a
-- newest row. Join tokens are not logged: they are secrets, and nothing in memory mirrors them.
CREATE TABLE changes (
    revision INTEGER PRIMARY KEY,
    id BLOB NOT NULL CHECK (length(id) = 16),
    kind TEXT NOT NULL,
    key BLOB NOT NULL
) STRICT;
INSERT INTO changes (revision, id, kind, key) VALUES (1, randomblob(16), 'start', x'');

-- What hangs below a parent is asked for, too.
DROP INDEX entries_by_ids;
CREATE INDEX entries_by_parent ON entries (parent_id, spiffe_id);
