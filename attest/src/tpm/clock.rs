//! The chip's own clock and its count of resets, attested.

use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Data, SignatureScheme};

use super::chip::Chip;
use super::error::TpmError;
use super::hierarchy::KeyHierarchy;
use super::key_blob::KeyBlob;
use super::key_blob::marshal;
use super::signing_key::check_attestation;
use crate::node::tpm2::ClockReading;

impl Chip {
    /// Clock and counters, from TPM2_GetTime signed by `ak` (the library has no TPM2_ReadClock). As `ak` is in the
    /// endorsement hierarchy, the counters are plain. Source: Part 3 §18.7.
    pub fn clock(&mut self, ak: &KeyBlob) -> Result<ClockReading, TpmError> {
        let kind = self.endorsement_kind()?;
        self.task(|tpm| {
            let loaded = tpm.load_alone(kind, ak)?;
            let (attest, signature) = tpm.authorized_by(KeyHierarchy::Endorsement, |tpm, authorization| {
                let sessions = (Some(authorization), Some(AuthSession::Password), None);
                tpm.command("TPM2_GetTime", sessions, |esys| {
                    esys.get_time(loaded.handle, Data::default(), SignatureScheme::Null)
                })
            })?;
            check_attestation("TPM2_GetTime", ak, &marshal("TPM2_GetTime", &attest)?, &signature)?;
            let clock = attest.clock_info();
            Ok(ClockReading {
                clock_ms: clock.clock(),
                reset_count: clock.reset_count(),
                restart_count: clock.restart_count(),
                safe: clock.safe(),
            })
        })
    }
}
