-- Version 2: what schema 12 of SQLite's files has. Servers of version 1 go on beside it: they know nothing of this table.

CREATE TABLE used_tokens (
    token BYTEA PRIMARY KEY CHECK (length(token) = 32),
    ends_at BIGINT NOT NULL
);
CREATE INDEX used_tokens_by_end ON used_tokens (ends_at);
