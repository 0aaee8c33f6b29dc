-- Version 6: the certificate that an agent attested with (x509pop). SHA-256 of its TBSCertificate: no two agents have the same.
-- NULL for other agents, and for one that attested before this version until it does again: one that is banned never does, so its ban
-- holds for its ID alone.

ALTER TABLE agents ADD COLUMN certificate_sha256 BLOB;
CREATE UNIQUE INDEX agents_by_certificate ON agents (certificate_sha256) WHERE certificate_sha256 IS NOT NULL;
