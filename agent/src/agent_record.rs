//! What an agent knows of itself between two runs: its certificate, the trust bundle, whether it may attest again.
//!
//! With a TPM it lives in the sealed cache. Without one it is a plain file, mode 0600, in the form SPIRE's agent uses
//! (`agent-data.json`), so that either agent can take over the other's data directory.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::durable_file;
use crate::trusted_time::TimeRecord;

/// Name of the plain file in the data directory.
pub const FILE_NAME: &str = "agent-data.json";
/// Largest plain file accepted, bytes.
const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// Why a plain record cannot be read or written.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The disk does not give or take it.
    #[error("cannot use the agent's record")]
    Io(#[source] std::io::Error),
    /// Not what this agent or SPIRE's writes.
    #[error("the agent's record does not parse")]
    Content,
}

/// What is remembered. Certificates are DER; they are verified when they are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentRecord {
    /// The agent's certificate chain, leaf first; empty before the first attestation.
    pub chain: Vec<Vec<u8>>,
    /// Whether the agent may attest again; otherwise it must renew in time.
    pub reattestable: bool,
    /// The last good authorities, each with whether it is tainted.
    pub authorities: Vec<(Vec<u8>, bool)>,
    /// Seconds that were left of the chain when this was written, by elapsed time; if that is known.
    pub left: Option<i64>,
    /// What is known of the time.
    pub time: Option<TimeRecord>,
}

/// SPIRE's form. Unknown fields (its bootstrap counters) are ignored.
#[derive(Serialize, Deserialize)]
struct PlainRecord {
    #[serde(default)]
    svid: Vec<String>,
    #[serde(default)]
    bundle: Vec<String>,
    #[serde(default)]
    reattestable: bool,
}

impl AgentRecord {
    /// Reads the plain file; `None` if there is none.
    pub fn read(directory: &Path) -> Result<Option<Self>, RecordError> {
        let bytes = durable_file::read(&directory.join(FILE_NAME), MAX_FILE_BYTES).map_err(RecordError::Io)?;
        bytes.map(|bytes| Self::from_json(&bytes)).transpose()
    }

    /// Replaces the plain file.
    pub fn write(&self, directory: &Path) -> Result<(), RecordError> {
        durable_file::replace(&directory.join(FILE_NAME), &self.to_json()).map_err(RecordError::Io)
    }

    fn from_json(json: &[u8]) -> Result<Self, RecordError> {
        let plain: PlainRecord = serde_json::from_slice(json).map_err(|_| RecordError::Content)?;
        let decode = |text: &String| STANDARD.decode(text).map_err(|_| RecordError::Content);
        let authorities: Result<Vec<_>, _> = plain.bundle.iter().map(|text| Ok((decode(text)?, false))).collect();
        Ok(Self {
            chain: plain.svid.iter().map(decode).collect::<Result<_, _>>()?,
            reattestable: plain.reattestable,
            authorities: authorities?,
            left: None,
            time: None,
        })
    }

    fn to_json(&self) -> Vec<u8> {
        let plain = PlainRecord {
            svid: self.chain.iter().map(|der| STANDARD.encode(der)).collect(),
            bundle: self.authorities.iter().map(|(der, _)| STANDARD.encode(der)).collect(),
            reattestable: self.reattestable,
        };
        serde_json::to_vec(&plain).expect("strings and a flag always serialise")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_record_survives_a_restart() {
        let directory = tempfile::tempdir().expect("directory");
        assert_eq!(AgentRecord::read(directory.path()).expect("no file is no error"), None);
        let record = AgentRecord {
            chain: vec![b"leaf".to_vec(), b"intermediate".to_vec()],
            reattestable: true,
            authorities: vec![(b"root".to_vec(), false)],
            left: None,
            time: None,
        };
        record.write(directory.path()).expect("written");
        assert_eq!(AgentRecord::read(directory.path()).expect("read"), Some(record));
    }

    #[test]
    fn reads_the_file_of_spires_agent() {
        let json = br#"{"svid":["bGVhZg=="],"bundle":["cm9vdA=="],"reattestable":false,"bootstrap_use":1,
            "bootstrap_start_time":"2026-01-01T00:00:00Z","connection_attempts":0}"#;
        let record = AgentRecord::from_json(json).expect("read");
        assert_eq!(record.chain, [b"leaf"]);
        assert_eq!(record.authorities, [(b"root".to_vec(), false)]);
        assert!(matches!(AgentRecord::from_json(b"{\"svid\":[\"*\"]}"), Err(RecordError::Content)));
        assert!(matches!(AgentRecord::from_json(b""), Err(RecordError::Content)));
    }
}
