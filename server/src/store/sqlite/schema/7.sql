-- Version 7: authorities of the bundle that servers of other tiers have. `revision` counts their changes.

CREATE TABLE tier_authorities (
    kind TEXT NOT NULL,         -- 'jwt' or 'x509'
    name TEXT NOT NULL,         -- the key ID; the SHA-256 of the certificate in hexadecimal
    origin TEXT NOT NULL,       -- the SPIFFE ID of the server below that published it; empty: the authority above has it
    credential BLOB NOT NULL,   -- DER: the SubjectPublicKeyInfo; the certificate
    expires_at INTEGER NOT NULL,
    tainted INTEGER NOT NULL,
    PRIMARY KEY (kind, name, origin)
) STRICT;
CREATE TABLE tier_revision (revision INTEGER NOT NULL) STRICT;
INSERT INTO tier_revision (revision) VALUES (0);
