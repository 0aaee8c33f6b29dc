//! Objects and sessions that a killed process left in a TPM without resource manager.
//!
//! The kernel's `/dev/tpmrm*` flushes what a process leaves; `/dev/tpm*` and a software TPM do not, and after three
//! kills their slots are taken. Such a TPM is ours alone, so what is loaded between our tasks can go. These are the only
//! commands not sent through the TSS library, which cannot flush a session that it did not start.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tracing::{debug, info};

use super::address::TpmAddress;

/// Longest TPM response, bytes.
const MAX_RESPONSE_BYTES: usize = 4096;
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
    let mut flushed = 0;
    for range in RANGES {
        for handle in handles(address, range)? {
            // TPM2_FlushContext, Part 3 §28.4.
            let mut command = vec![0x80, 0x01, 0, 0, 0, 14, 0, 0, 0x01, 0x65];
            command.extend(handle.to_be_bytes());
            transmit(address, &command)?;
            flushed += 1;
        }
    }
    Ok(flushed)
}

/// TPM2_GetCapability(TPM_CAP_HANDLES), Part 3 §30.2. Response: header, moreData, capability, count, handles.
fn handles(address: &TpmAddress, first: u32) -> io::Result<Vec<u32>> {
    let mut command = vec![0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, 1];
    command.extend(first.to_be_bytes());
    command.extend(MAX_HANDLES.to_be_bytes());
    let response = transmit(address, &command)?;
    let listed = response.get(19..).unwrap_or_default();
    Ok(listed.chunks_exact(4).map(|h| u32::from_be_bytes([h[0], h[1], h[2], h[3]])).collect())
}

fn transmit(address: &TpmAddress, command: &[u8]) -> io::Result<Vec<u8>> {
    match address {
        TpmAddress::Device(path) => exchange(File::options().read(true).write(true).open(path)?, command),
        TpmAddress::Swtpm { host, port } => {
            let stream = TcpStream::connect((*host, *port))?;
            stream.set_read_timeout(Some(DEADLINE))?;
            exchange(stream, command)
        }
        TpmAddress::Mssim { host, port } => {
            let stream = TcpStream::connect((*host, *port))?;
            stream.set_read_timeout(Some(DEADLINE))?;
            exchange_with_simulator(stream, command)
        }
    }
}

/// A TPM answers with one message, which devices and software TPMs hand over in one read.
fn exchange(mut tpm: impl Read + Write, command: &[u8]) -> io::Result<Vec<u8>> {
    tpm.write_all(command)?;
    let mut response = vec![0; MAX_RESPONSE_BYTES];
    let length = tpm.read(&mut response)?;
    response.truncate(length);
    Ok(response)
}

/// The reference code's own frames: TPM_SEND_COMMAND, locality, length, command; then length, response, and a zero; then
/// TPM_SESSION_END. Source: TcpTpmProtocol.h of the TPM reference code.
fn exchange_with_simulator(mut tpm: impl Read + Write, command: &[u8]) -> io::Result<Vec<u8>> {
    const SEND_COMMAND: u32 = 8;
    const SESSION_END: u32 = 20;
    let length = u32::try_from(command.len()).map_err(io::Error::other)?;
    let frame = [&SEND_COMMAND.to_be_bytes()[..], &[0], &length.to_be_bytes(), command].concat();
    tpm.write_all(&frame)?;
    let mut length = [0; 4];
    tpm.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_RESPONSE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut response = vec![0; length + 4];
    tpm.read_exact(&mut response)?;
    response.truncate(length);
    tpm.write_all(&SESSION_END.to_be_bytes())?;
    Ok(response)
}
