//! Objects and sessions that a killed process left in a TPM without resource manager.
//!
//! The kernel's `/dev/tpmrm*` flushes what a process leaves; `/dev/tpm*` and a software TPM do not, and after three
//! kills their slots are taken. Such a TPM is ours alone, so what is loaded between our tasks can go. Not sent
//! through the TSS library, which flushes no session that it did not start.

use std::io;
use std::time::Duration;

use tracing::{debug, info};

use super::address::TpmAddress;
use super::raw::RawConnection;

/// A software TPM or chip answers these within milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);
/// Handles asked for at once; a TPM has at most 64 active sessions.
const MAX_HANDLES: u32 = 64;

/// TPM_HT_TRANSIENT, loaded sessions (TPM_HT_HMAC_SESSION) and saved ones (TPM_HT_POLICY_SESSION), shifted to the first
/// handle of each range: what TPM2_GetCapability(TPM_CAP_HANDLES) takes. Source: Part 3 §30.2.
const RANGES: [u32; 3] = [0x8000_0000, 0x0200_0000, 0x0300_0000];

/// Flushes all transient objects and sessions, if the TPM at `address` has no resource manager. A TPM that does not answer
/// is left to the connection that is tried next: it says so better.
pub fn flush(address: &TpmAddress) {
    if has_resource_manager(address) {
        return;
    }
    match flush_all(address) {
        Ok(0) => {}
        Ok(flushed) => info!(%address, flushed, "objects and sessions left in the TPM were flushed"),
        Err(error) => debug!(%address, %error, "cannot look for objects left in the TPM"),
    }
}

fn has_resource_manager(address: &TpmAddress) -> bool {
    match address {
        TpmAddress::Device(path) => path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tpmrm")),
        TpmAddress::Swtpm { .. } | TpmAddress::Mssim { .. } => false,
    }
}

fn flush_all(address: &TpmAddress) -> io::Result<usize> {
    let (mut tpm, mut flushed) = (RawConnection::open(address, DEADLINE)?, 0);
    for range in RANGES {
        for handle in handles(&mut tpm, range)? {
            // TPM2_FlushContext, Part 3 §28.4.
            let mut command = vec![0x80, 0x01, 0, 0, 0, 14, 0, 0, 0x01, 0x65];
            command.extend(handle.to_be_bytes());
            tpm.transmit(&command)?;
            flushed += 1;
        }
    }
    Ok(flushed)
}

/// TPM2_GetCapability(TPM_CAP_HANDLES), Part 3 §30.2. Response: header, moreData, capability, count, handles.
fn handles(tpm: &mut RawConnection, first: u32) -> io::Result<Vec<u32>> {
    let mut command = vec![0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, 1];
    command.extend(first.to_be_bytes());
    command.extend(MAX_HANDLES.to_be_bytes());
    let response = tpm.transmit(&command)?;
    let listed = response.get(19..).unwrap_or_default();
    Ok(listed.chunks_exact(4).map(|h| u32::from_be_bytes([h[0], h[1], h[2], h[3]])).collect())
}
