//! The few commands that are not sent through the TSS library, because it cannot send them: a connection of their own.
//!
//! A chip without resource manager has one user at a time: the library's connection is closed before one of these is opened.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::address::TpmAddress;

/// Longest TPM response, bytes.
const MAX_RESPONSE_BYTES: usize = 4096;
/// Tag, size and code of a command or response, bytes. Source: Part 1 §18.
pub const HEADER_BYTES: usize = 10;

/// TPM_SEND_COMMAND and TPM_SESSION_END of the reference code's own frames. Source: TcpTpmProtocol.h of the TPM reference code.
const SEND_COMMAND: u32 = 8;
const SESSION_END: u32 = 20;

/// A connection to a chip.
pub struct RawConnection(Wire);

enum Wire {
    Device(File),
    Swtpm(TcpStream),
    Mssim(TcpStream),
}

impl RawConnection {
    /// Opens it. `deadline`: how long a software TPM may take for an answer; a device's driver gives up by itself.
    pub fn open(address: &TpmAddress, deadline: Duration) -> io::Result<Self> {
        let connect = |host: &_, port: &_| {
            let stream = TcpStream::connect((*host, *port))?;
            stream.set_read_timeout(Some(deadline))?;
            io::Result::Ok(stream)
        };
        Ok(Self(match address {
            TpmAddress::Device(path) => Wire::Device(File::options().read(true).write(true).open(path)?),
            TpmAddress::Swtpm { host, port } => Wire::Swtpm(connect(host, port)?),
            TpmAddress::Mssim { host, port } => Wire::Mssim(connect(host, port)?),
        }))
    }

    /// Sends a command and waits for its response: whole, with its header.
    pub fn transmit(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        match &mut self.0 {
            Wire::Device(device) => exchange(device, command),
            Wire::Swtpm(stream) => exchange(stream, command),
            Wire::Mssim(stream) => exchange_in_frames(stream, command),
        }
    }
}

impl Drop for RawConnection {
    fn drop(&mut self) {
        if let Wire::Mssim(stream) = &mut self.0 {
            // A simulator that does not hear it notices that the connection is closed.
            let _ = stream.write_all(&SESSION_END.to_be_bytes());
        }
    }
}

/// A device hands its answer over in one read; what comes over TCP may come in parts, and says in its header how long it is.
fn exchange(tpm: &mut (impl Read + Write), command: &[u8]) -> io::Result<Vec<u8>> {
    tpm.write_all(command)?;
    let mut response = vec![0; MAX_RESPONSE_BYTES];
    let mut length = 0;
    while length < HEADER_BYTES || length < size(&response) {
        match tpm.read(&mut response[length..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => length += read,
        }
    }
    response.truncate(length);
    Ok(response)
}

/// What a header says of its message's length, bytes.
fn size(message: &[u8]) -> usize {
    message[2..].first_chunk().map_or(0, |size| u32::from_be_bytes(*size) as usize)
}

/// The reference code's frames: TPM_SEND_COMMAND, locality, length, command; then length, response, and a zero.
fn exchange_in_frames(tpm: &mut (impl Read + Write), command: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(command.len()).map_err(io::Error::other)?;
    let frame = [&SEND_COMMAND.to_be_bytes()[..], &[0], &length.to_be_bytes(), command].concat();
    tpm.write_all(&frame)?;
    let mut length = [0; 4];
    tpm.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if !(HEADER_BYTES..=MAX_RESPONSE_BYTES).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut response = vec![0; length + 4];
    tpm.read_exact(&mut response)?;
    response.truncate(length);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Answers in these parts, whatever it is told.
    struct Parts(VecDeque<Vec<u8>>);

    impl Read for Parts {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let part = self.0.pop_front().unwrap_or_default();
            let length = part.len().min(buffer.len());
            buffer[..length].copy_from_slice(&part[..length]);
            Ok(length)
        }
    }

    impl Write for Parts {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            Ok(buffer.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answered(parts: &[&[u8]]) -> io::Result<Vec<u8>> {
        exchange(&mut Parts(parts.iter().map(|part| part.to_vec()).collect()), &[])
    }

    #[test]
    fn an_answer_is_whole_however_it_comes_and_bounded_whatever_it_says() {
        let answer = [0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 7, 8];
        assert_eq!(answered(&[&answer]).expect("whole"), answer);
        assert_eq!(answered(&[&answer[..3], &answer[3..11], &answer[11..]]).expect("whole"), answer);
        assert_eq!(answered(&[&answer[..11]]).expect_err("cut").kind(), io::ErrorKind::UnexpectedEof);
        let endless = [0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let more = [0; MAX_RESPONSE_BYTES];
        assert_eq!(answered(&[&endless, &more]).expect_err("too long").kind(), io::ErrorKind::UnexpectedEof);
    }
}
