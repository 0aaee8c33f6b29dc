-- Version 12: tokens of other issuers that SVIDs were issued for, until they end. `token`: a hash of the issuer's name and the token's ID.

CREATE TABLE used_tokens (
    token BLOB NOT NULL PRIMARY KEY CHECK (length(token) = 32),
    ends_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX used_tokens_by_end ON used_tokens (ends_at);
