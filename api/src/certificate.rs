//! X.509 certificates as this project reads them: names, serials, validity, key identifiers.
