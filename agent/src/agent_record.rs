//! What an agent knows of itself between two runs: its certificate, the trust bundle, whether it may attest again.
//!
//! With a TPM it lives in the sealed cache. Without one it is a plain file, mode 0600, in the form SPIRE's agent uses
//! (`agent-data.json`), so that either agent can take over the other's data directory.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironroot_api::certificate::Certificate;
use ironroot_api::{TrustDomain, from_utc, utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::durable_file;
use crate::server_answers::{AnswerRefusal, TrustBundle};
use crate::trusted_time::{Span, TimeRecord};

/// Name of the plain file in the data directory.
pub const FILE_NAME: &str = "agent-data.json";
/// Largest plain file accepted, bytes.
const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;
/// SPIRE's `bootstrap_use` of an agent that knows its server's bundle.
const ATTESTED: i64 = 2;

/// Why a plain record cannot be read or written.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The disk does not give or take it.
    #[error("cannot use the agent's record")]
    Io(#[source] std::io::Error),
    /// Not what this agent or SPIRE's writes.
    #[error("the agent's record does not parse")]
    Content,
    /// Its authorities are no trust bundle.
    #[error("the stored trust bundle is not used")]
    Bundle(#[from] AnswerRefusal),
}

/// What is remembered. Certificates are DER; they are verified when they are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentRecord {
    /// The agent's certificate chain, leaf first; empty before the first attestation.
    pub chain: Vec<Vec<u8>>,
    /// Whether the agent may attest again; otherwise it must renew in time.
    pub reattestable: bool,
    /// The last good trust bundle, if there was one.
    pub bundle: Option<Arc<TrustBundle>>,
    /// Seconds that were left of the chain when this was written, by elapsed time; if that is known.
    pub left: Option<i64>,
    /// What is known of the time.
    pub time: Option<TimeRecord>,
    /// The kernel's name for the boot that the agent attested in; empty if that is not known.
    pub attested_boot: String,
    /// When the newest authority began of all bundles that were held, UNIX seconds; if that is known.
    pub newest_authority: Option<i64>,
    /// Since when its server is not believed, UNIX seconds; if that is so, and matters.
    pub disbelieved_since: Option<i64>,
    /// The agent's own CA, if it has one.
    pub local_authority: Option<KeptAuthority>,
    /// The key by which it signs JWT-SVIDs while its server is away, if it has one.
    pub local_jwt_key: Option<KeptJwtKey>,
}

/// A key that signs JWT-SVIDs, as it is kept; it is where the agent's keys are, and its public half is in the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptJwtKey {
    /// What the bundle calls it.
    pub key_id: String,
    /// From when until when it may sign.
    pub span: Span,
    /// Seconds that were left of that when this was written, by elapsed time.
    pub left: i64,
}

/// An agent's own CA, as it is kept; its key is where the agent's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAuthority {
    /// Certificates, DER: an SVID that the CA has signed for a key that is gone, the CA itself, and what is between it and a root.
    pub proof: Vec<Vec<u8>>,
    /// Seconds that were left of them when this was written, by elapsed time.
    pub left: i64,
}

/// SPIRE's form: each certificate is the base64 of a PEM block, and an empty list is `null`. The last three fields are its
/// bootstrap counters; their values here are what its agent writes once it has attested.
/// Source: SPIRE, pkg/agent/storage/storage.go.
#[derive(Serialize, Deserialize)]
struct PlainRecord {
    #[serde(default)]
    svid: Option<Vec<String>>,
    #[serde(default)]
    bundle: Option<Vec<String>>,
    #[serde(default)]
    reattestable: bool,
    #[serde(default)]
    bootstrap_use: i64,
    #[serde(default = "zero_time")]
    bootstrap_start_time: String,
    #[serde(default)]
    connection_attempts: i64,
}

/// Go's zero time.
fn zero_time() -> String {
    "0001-01-01T00:00:00Z".to_owned()
}

impl AgentRecord {
    /// Reads the plain file; `None` if there is none.
    pub fn read(directory: &Path, trust_domain: &TrustDomain) -> Result<Option<Self>, RecordError> {
        let bytes = durable_file::read(&directory.join(FILE_NAME), MAX_FILE_BYTES).map_err(RecordError::Io)?;
        bytes.map(|bytes| Self::from_json(&bytes, trust_domain)).transpose()
    }

    /// Replaces the plain file.
    pub fn write(&self, directory: &Path) -> Result<(), RecordError> {
        durable_file::replace(&directory.join(FILE_NAME), &self.to_json()).map_err(RecordError::Io)
    }

    fn from_json(json: &[u8], trust_domain: &TrustDomain) -> Result<Self, RecordError> {
        let plain: PlainRecord = serde_json::from_slice(json).map_err(|_| RecordError::Content)?;
        let decode = |list: Option<Vec<String>>| list.unwrap_or_default().iter().map(|text| decode(text)).collect();
        let chain: Result<Vec<_>, _> = decode(plain.svid);
        let authorities: Result<Vec<_>, _> = decode(plain.bundle);
        let authorities: Vec<Vec<u8>> = authorities?;
        Ok(Self {
            chain: chain?,
            reattestable: plain.reattestable,
            bundle: stored_bundle(authorities.iter().map(|der| (&der[..], false)), trust_domain)?.map(Arc::new),
            left: None,
            time: None,
            attested_boot: String::new(),
            newest_authority: None,
            disbelieved_since: from_utc(&plain.bootstrap_start_time).filter(|since| *since > 0),
            local_authority: None,
            local_jwt_key: None,
        })
    }

    fn to_json(&self) -> Vec<u8> {
        let list = |ders: Vec<String>| (!ders.is_empty()).then_some(ders);
        let bundle = self.bundle.iter().flat_map(|bundle| bundle.authorities().map(|der| encode(&der)));
        let plain = PlainRecord {
            svid: list(self.chain.iter().map(|der| encode(der)).collect()),
            bundle: list(bundle.collect()),
            reattestable: self.reattestable,
            bootstrap_use: ATTESTED,
            bootstrap_start_time: self.disbelieved_since.map_or_else(zero_time, utc),
            connection_attempts: 0,
        };
        serde_json::to_vec(&plain).expect("strings, numbers and a flag always serialise")
    }
}

/// The bundle of stored authorities, if there are any.
pub(crate) fn stored_bundle<'a>(
    authorities: impl ExactSizeIterator<Item = (&'a [u8], bool)>,
    trust_domain: &TrustDomain,
) -> Result<Option<TrustBundle>, AnswerRefusal> {
    if authorities.len() == 0 {
        return Ok(None);
    }
    TrustBundle::new(trust_domain, authorities).map(Some)
}

/// A certificate in SPIRE's form, or as versions of this agent before it wrote it: DER without PEM around it.
fn decode(text: &str) -> Result<Vec<u8>, RecordError> {
    let bytes = STANDARD.decode(text).map_err(|_| RecordError::Content)?;
    let Some(pem) = std::str::from_utf8(&bytes).ok().filter(|text| text.contains("-----BEGIN")) else {
        return Ok(bytes);
    };
    let certificates = Certificate::parse_pem(pem).map_err(|_| RecordError::Content)?;
    Ok(certificates.first().ok_or(RecordError::Content)?.der().to_vec())
}

/// Byte for byte what Go's encoding/pem and encoding/json make of it.
fn encode(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII"));
    let body: String = lines.map(|line| format!("{line}\n")).collect();
    STANDARD.encode(format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> rcgen::Certificate {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&key).expect("signed")
    }

    fn trust_domain() -> TrustDomain {
        TrustDomain::new("td").expect("legal")
    }

    fn from_json(json: &[u8]) -> Result<AgentRecord, RecordError> {
        AgentRecord::from_json(json, &trust_domain())
    }

    fn record(chain: Vec<Vec<u8>>, authorities: Vec<Vec<u8>>) -> AgentRecord {
        let authorities = authorities.iter().map(|der| (&der[..], false));
        let bundle = stored_bundle(authorities, &trust_domain()).expect("authorities").map(Arc::new);
        AgentRecord { chain, reattestable: true, bundle, ..AgentRecord::default() }
    }

    #[test]
    fn records_survive_damage() {
        let der = || certificate().der().to_vec();
        let spires = record(vec![der(), der()], vec![der()]).to_json();
        ironroot_fuzz::Target::new("agent-data.json").seed(spires).seed(r#"{"svid":["AAAA"],"bundle":null}"#).survives(
            |bytes| {
                if let Ok(record) = from_json(bytes) {
                    let _ = record.to_json();
                }
            },
        );
    }

    #[test]
    fn plain_record_survives_a_restart() {
        let directory = tempfile::tempdir().expect("directory");
        assert_eq!(AgentRecord::read(directory.path(), &trust_domain()).expect("no file is no error"), None);
        let der = || certificate().der().to_vec();
        let record = record(vec![der(), der()], vec![der()]);
        record.write(directory.path()).expect("written");
        assert_eq!(AgentRecord::read(directory.path(), &trust_domain()).expect("read"), Some(record));
    }

    #[test]
    fn the_file_is_byte_for_byte_that_of_spires_agent() {
        // storage.go marshals a struct with these fields in this order; encoding/json writes no blanks, []byte as padded
        // standard base64 and a nil slice as null; pemutil.EncodeCertificate is encoding/pem with lines of 64.
        let (leaf, root) = (certificate(), certificate());
        let pem = |certificate: &rcgen::Certificate| STANDARD.encode(certificate.pem().replace("\r\n", "\n"));
        let expected = format!(
            r#"{{"svid":["{}"],"bundle":["{}"],"reattestable":true,"bootstrap_use":2,"bootstrap_start_time":"0001-01-01T00:00:00Z","connection_attempts":0}}"#,
            pem(&leaf),
            pem(&root)
        );
        let ours = record(vec![leaf.der().to_vec()], vec![root.der().to_vec()]);
        assert_eq!(String::from_utf8(ours.to_json()).expect("text"), expected);
        assert_eq!(from_json(expected.as_bytes()).expect("read"), ours);
        let empty = String::from_utf8(record(vec![], vec![]).to_json()).expect("text");
        assert!(empty.starts_with(r#"{"svid":null,"bundle":null,"#), "{empty}");
        assert_eq!(from_json(empty.as_bytes()).expect("read"), record(vec![], vec![]));
    }

    #[test]
    fn reads_what_versions_before_wrote() {
        let root = certificate();
        let root = STANDARD.encode(root.der());
        let json = format!(r#"{{"svid":["bGVhZg=="],"bundle":["{root}"],"reattestable":false}}"#);
        let record = from_json(json.as_bytes()).expect("read");
        assert_eq!(record.chain, [b"leaf"]);
        assert_eq!(STANDARD.encode(record.bundle.expect("a bundle").concatenated()), root);
        let no_bundle = from_json(br#"{"svid":["bGVhZg=="],"bundle":["cm9vdA=="]}"#);
        assert!(matches!(no_bundle, Err(RecordError::Bundle(_))));
        assert!(matches!(from_json(b"{\"svid\":[\"*\"]}"), Err(RecordError::Content)));
        let broken = STANDARD.encode("-----BEGIN CERTIFICATE-----\nno\n");
        assert!(matches!(from_json(format!(r#"{{"svid":["{broken}"]}}"#).as_bytes()), Err(RecordError::Content)));
        assert!(matches!(from_json(b""), Err(RecordError::Content)));
    }
}
