-- Version 4: a journal for each server that shares the file; `server` is empty of one without a name.

CREATE TABLE ca_journals (
    server TEXT PRIMARY KEY,
    journal BLOB NOT NULL
) STRICT;
INSERT INTO ca_journals (server, journal) SELECT '', journal FROM ca_journal;
DROP TABLE ca_journal;
