//! The files that a server of SPIRE's leaves: its SQLite database, and the keys of its KeyManager "disk".

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use ironroot_server::keys::{KeyFile, SoftwareKey};
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rusqlite::{Connection, params};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;
use time::OffsetDateTime;

/// When the import happens, UNIX seconds (2026-07-02); everything else is told from there.
pub const NOW: i64 = 1_783_000_000;
pub const DAY: i64 = 24 * 60 * 60;

/// Tables and columns as SPIRE has them, schema 25, without its indices.
pub const SCHEMA: &str = "
CREATE TABLE migrations (id integer primary key autoincrement, created_at datetime, updated_at datetime, version integer, code_version varchar(255));
CREATE TABLE bundles (id integer primary key autoincrement, created_at datetime, updated_at datetime, trust_domain varchar(255) NOT NULL, data blob);
CREATE TABLE attested_node_entries (id integer primary key autoincrement, created_at datetime, updated_at datetime, spiffe_id varchar(255), data_type varchar(255), serial_number varchar(255), expires_at datetime, new_serial_number varchar(255), new_expires_at datetime, can_reattest bool, agent_version varchar(255));
CREATE TABLE node_resolver_map_entries (id integer primary key autoincrement, created_at datetime, updated_at datetime, spiffe_id varchar(255), type varchar(255), value varchar(255));
CREATE TABLE registered_entries (id integer primary key autoincrement, created_at datetime, updated_at datetime, entry_id varchar(255), spiffe_id varchar(255), parent_id varchar(255), ttl integer, admin bool, downstream bool, expiry bigint, revision_number bigint, store_svid bool, hint varchar(255), jwt_svid_ttl integer, additional_attributes blob);
CREATE TABLE selectors (id integer primary key autoincrement, created_at datetime, updated_at datetime, registered_entry_id integer, type varchar(255), value varchar(255));
CREATE TABLE dns_names (id integer primary key autoincrement, created_at datetime, updated_at datetime, registered_entry_id integer, value varchar(255));
CREATE TABLE federated_registration_entries (bundle_id integer, registered_entry_id integer, PRIMARY KEY (bundle_id, registered_entry_id));
CREATE TABLE join_tokens (id integer primary key autoincrement, created_at datetime, updated_at datetime, token varchar(255), expiry bigint);
CREATE TABLE federated_trust_domains (id integer primary key autoincrement, created_at datetime, updated_at datetime, trust_domain varchar(255) NOT NULL, bundle_endpoint_url varchar(255), bundle_endpoint_profile varchar(255), endpoint_spiffe_id varchar(255), implicit bool);
CREATE TABLE ca_journals (id integer primary key autoincrement, created_at datetime, updated_at datetime, data blob, active_x509_authority_id varchar(255), active_jwt_authority_id varchar(255));
";

#[derive(Clone, PartialEq, Message)]
pub struct Bundle {
    #[prost(string, tag = "1")]
    pub trust_domain_id: String,
    #[prost(message, repeated, tag = "2")]
    pub root_cas: Vec<RootCa>,
    #[prost(message, repeated, tag = "3")]
    pub jwt_signing_keys: Vec<JwtKey>,
    #[prost(int64, tag = "4")]
    pub refresh_hint: i64,
    #[prost(uint64, tag = "5")]
    pub sequence_number: u64,
    #[prost(message, repeated, tag = "6")]
    pub wit_signing_keys: Vec<JwtKey>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RootCa {
    #[prost(bytes = "vec", tag = "1")]
    pub der: Vec<u8>,
    #[prost(bool, tag = "2")]
    pub tainted: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct JwtKey {
    #[prost(bytes = "vec", tag = "1")]
    pub pkix: Vec<u8>,
    #[prost(string, tag = "2")]
    pub kid: String,
    #[prost(int64, tag = "3")]
    pub not_after: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Journal {
    #[prost(message, repeated, tag = "1")]
    pub cas: Vec<Ca>,
    #[prost(message, repeated, tag = "2")]
    pub jwt_keys: Vec<JwtEntry>,
    #[prost(message, repeated, tag = "3")]
    pub wit_keys: Vec<JwtEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Ca {
    #[prost(string, tag = "1")]
    pub slot: String,
    #[prost(int64, tag = "2")]
    pub issued_at: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub certificate: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub upstream_chain: Vec<Vec<u8>>,
    #[prost(int32, tag = "5")]
    pub status: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct JwtEntry {
    #[prost(string, tag = "1")]
    pub slot: String,
    #[prost(int64, tag = "2")]
    pub issued_at: i64,
    #[prost(int64, tag = "3")]
    pub not_after: i64,
    #[prost(string, tag = "4")]
    pub kid: String,
    #[prost(bytes = "vec", tag = "5")]
    pub public_key: Vec<u8>,
    #[prost(int32, tag = "6")]
    pub status: i32,
}

pub const PREPARED: i32 = 2;
pub const ACTIVE: i32 = 3;
pub const OLD: i32 = 4;

/// What the files hold; a test changes it before they are written.
pub struct SpireFiles {
    pub directory: TempDir,
    pub keys: BTreeMap<String, SoftwareKey>,
    pub bundle: Bundle,
    pub journals: Vec<Journal>,
    pub version: i64,
}

impl SpireFiles {
    /// A server of SPIRE's: an active CA in slot A, the next in slot B, a key of JWT-SVIDs in slot A, and an authority of another server.
    pub fn new() -> Self {
        let keys: BTreeMap<_, _> = ["x509-CA-A", "x509-CA-B", "JWT-Signer-A"]
            .map(|id| (id.to_owned(), SoftwareKey::generate(ironroot_hsm::KeyKind::EcP256).expect("a key")))
            .into_iter()
            .collect();
        let [a, b] = ["x509-CA-A", "x509-CA-B"].map(|id| ca(&keys[id], "spiffe://example.org", NOW + DAY));
        let other = SoftwareKey::generate(ironroot_hsm::KeyKind::EcP384).expect("a key");
        let of_another_server = ca(&other, "spiffe://example.org", NOW + DAY / 2);
        let kid = "k".repeat(32);
        let pkix = keys["JWT-Signer-A"].spki_der().to_vec();
        let root = |der: &Vec<u8>| RootCa { der: der.clone(), tainted: false };
        let bundle = Bundle {
            trust_domain_id: "spiffe://example.org".into(),
            root_cas: vec![root(&of_another_server), root(&a), root(&b)],
            jwt_signing_keys: vec![JwtKey { pkix: pkix.clone(), kid: kid.clone(), not_after: NOW + DAY }],
            refresh_hint: 0,
            sequence_number: 7,
            wit_signing_keys: Vec::new(),
        };
        let entry = |slot: &str, certificate: Vec<u8>, status| Ca {
            slot: slot.into(),
            issued_at: NOW - DAY,
            certificate,
            upstream_chain: Vec::new(),
            status,
        };
        let jwt = JwtEntry {
            slot: "A".into(),
            issued_at: NOW - DAY,
            not_after: NOW + DAY,
            kid,
            public_key: pkix,
            status: ACTIVE,
        };
        let cas = vec![entry("A", a, ACTIVE), entry("B", b, PREPARED)];
        let journal = Journal { cas, jwt_keys: vec![jwt], wit_keys: Vec::new() };
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, keys, bundle, journals: vec![journal], version: 25 }
    }

    /// The same with WIT-SVIDs switched on: a key in slot A signs, the next is in slot B, and one more is another server's.
    pub fn with_wit() -> Self {
        let mut files = Self::new();
        for (slot, status) in [("A", ACTIVE), ("B", PREPARED)] {
            let key = SoftwareKey::generate(ironroot_hsm::KeyKind::EcP256).expect("a key");
            let (kid, public_key) = (slot.repeat(32), key.spki_der().to_vec());
            let (issued_at, not_after) = (NOW - DAY, NOW + DAY);
            files.bundle.wit_signing_keys.push(JwtKey { pkix: public_key.clone(), kid: kid.clone(), not_after });
            let entry = JwtEntry { slot: slot.into(), issued_at, not_after, kid, public_key, status };
            files.journals[0].wit_keys.push(entry);
            files.keys.insert(format!("WIT-Signer-{slot}"), key);
        }
        let other = SoftwareKey::generate(ironroot_hsm::KeyKind::EcP384).expect("a key");
        let pkix = other.spki_der().to_vec();
        files.bundle.wit_signing_keys.push(JwtKey { pkix, kid: "o".repeat(32), not_after: NOW + DAY });
        files
    }

    pub fn database(&self) -> PathBuf {
        self.directory.path().join("datastore.sqlite3")
    }

    pub fn key_file(&self) -> PathBuf {
        self.directory.path().join("keys.json")
    }

    /// Writes both files.
    pub fn write(&self) -> Connection {
        KeyFile::at(&self.key_file()).replace(self.keys.iter().map(|(id, key)| (id.as_str(), key))).expect("written");
        let connection = Connection::open(self.database()).expect("opened");
        connection.execute_batch(SCHEMA).expect("made");
        let version = "INSERT INTO migrations (version, code_version) VALUES (?1, '1.16.0')";
        connection.execute(version, [self.version]).expect("written");
        let bundle = "INSERT INTO bundles (trust_domain, data) VALUES (?1, ?2)";
        connection.execute(bundle, params!["spiffe://example.org", self.bundle.encode_to_vec()]).expect("written");
        for journal in &self.journals {
            connection
                .execute("INSERT INTO ca_journals (data) VALUES (?1)", [journal.encode_to_vec()])
                .expect("written");
        }
        connection
    }
}

/// As SPIRE's engine writes a time.
pub fn datetime(unix: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(unix).expect("a time");
    let (date, clock) = (time.date(), time.time());
    format!("{date} {:02}:{:02}:{:02}.204657828+00:00", clock.hour(), clock.minute(), clock.second())
}

/// An entry below `parent`, with one selector; its row.
pub fn add_entry(connection: &Connection, id: &str, spiffe_id: &str, parent: &str, selector: (&str, &str)) -> i64 {
    let add = "INSERT INTO registered_entries (created_at, entry_id, spiffe_id, parent_id, ttl, admin, downstream, expiry, \
               revision_number, store_svid, hint, jwt_svid_ttl) VALUES (?1, ?2, ?3, ?4, 77, 0, 0, 0, 3, 0, 'h', 0)";
    connection.execute(add, params![datetime(NOW - 100), id, spiffe_id, parent]).expect("written");
    let row = connection.last_insert_rowid();
    add_selector(connection, row, selector);
    row
}

pub fn add_selector(connection: &Connection, entry: i64, (kind, value): (&str, &str)) {
    let add = "INSERT INTO selectors (registered_entry_id, type, value) VALUES (?1, ?2, ?3)";
    connection.execute(add, params![entry, kind, value]).expect("written");
}

/// An agent whose certificate has this serial number; none: it is banned.
pub fn add_agent(connection: &Connection, id: &str, kind: &str, serial: &str, can_reattest: bool, ends: i64) {
    let add = "INSERT INTO attested_node_entries (spiffe_id, data_type, serial_number, expires_at, new_serial_number, can_reattest, \
               agent_version) VALUES (?1, ?2, ?3, ?4, '', ?5, '1.15.0')";
    connection.execute(add, params![id, kind, serial, datetime(ends), can_reattest]).expect("written");
}

fn ca(key: &SoftwareKey, uri: &str, not_after: i64) -> Vec<u8> {
    let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.pkcs8_der())).expect("a key");
    ca_params(uri, not_after).self_signed(&key).expect("signs").der().to_vec()
}

fn ca_params(uri: &str, not_after: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI"))];
    params.not_before = OffsetDateTime::from_unix_timestamp(not_after - 2 * DAY).expect("a time");
    params.not_after = OffsetDateTime::from_unix_timestamp(not_after).expect("a time");
    params
}

/// An authority of another PKI.
pub struct Pki {
    params: CertificateParams,
    key: KeyPair,
    pub der: Vec<u8>,
}

impl Pki {
    /// One that `above` has signed, or itself.
    pub fn below(above: Option<&Self>, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.use_authority_key_identifier_extension = true;
        params.not_before = OffsetDateTime::from_unix_timestamp(NOW - DAY).expect("a time");
        params.not_after = OffsetDateTime::from_unix_timestamp(NOW + 10 * DAY).expect("a time");
        let signed = match above {
            Some(above) => params.signed_by(&key, &above.issuer()),
            None => params.self_signed(&key),
        };
        let der = signed.expect("signs").der().to_vec();
        Self { params, key, der }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// The certificate of a CA of SPIRE's.
    pub fn certify(&self, key: &SoftwareKey, uri: &str, not_after: i64) -> Vec<u8> {
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.pkcs8_der())).expect("a key");
        let mut params = ca_params(uri, not_after);
        params.use_authority_key_identifier_extension = true;
        params.signed_by(&key, &self.issuer()).expect("signs").der().to_vec()
    }
}

/// What is in the directory: names, bytes, times.
pub fn state(files: &SpireFiles) -> Vec<(String, Vec<u8>, std::time::SystemTime)> {
    let listed = fs::read_dir(files.directory.path()).expect("listed").map(|file| {
        let file = file.expect("a file");
        let changed = file.metadata().and_then(|facts| facts.modified()).expect("a time");
        (file.file_name().to_string_lossy().into_owned(), fs::read(file.path()).expect("read"), changed)
    });
    let mut listed: Vec<_> = listed.collect();
    listed.sort();
    listed
}
