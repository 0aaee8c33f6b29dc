//! A stream sealed to the operator's key: HPKE (RFC 9180), a message for each chunk. The suite counts messages itself, so none can be
//! left out, doubled or moved; that the last one is the last is said beside it.

use std::io::{self, Read, Write};

use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkeOpener, HpkeSealer};
use zeroize::Zeroizing;

use super::operator_key::{OperatorKey, OperatorPublicKey};

/// Bytes of a chunk before it is sealed: what is held in memory, and what a reader takes before it is proven.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes by which a chunk grows: AES-GCM's tag.
const TAG_BYTES: usize = 16;
/// Bytes of what the receiver makes the shared secret from: an X25519 key.
const ENCAPSULATED_BYTES: usize = 32;
const MORE: &[u8] = &[0];
const LAST: &[u8] = &[1];

/// Seals what is written to it. [`Self::finish`] writes the end; without it nobody can open what is there.
pub(super) struct SealingWriter<W: Write> {
    out: W,
    sealer: Box<dyn HpkeSealer>,
    chunk: Zeroizing<Vec<u8>>,
}

impl<W: Write> SealingWriter<W> {
    /// `header`: what stands before it in the file, which is bound to it.
    pub fn begin(mut out: W, header: &[u8], to: &OperatorPublicKey) -> Result<Self, SealingError> {
        let (secret, sealer) = SUITE.setup_sealer(header, &to.hpke()).map_err(SealingError::Provider)?;
        out.write_all(&secret.0).map_err(SealingError::Io)?;
        Ok(Self { out, sealer, chunk: Zeroizing::new(Vec::with_capacity(CHUNK_BYTES)) })
    }

    /// Seals what is left as the last chunk.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(LAST)?;
        Ok(self.out)
    }

    fn seal(&mut self, which: &[u8]) -> io::Result<()> {
        let sealed = self.sealer.seal(which, &self.chunk).map_err(io::Error::other)?;
        self.chunk.clear();
        self.out.write_all(&sealed)
    }
}

impl<W: Write> Write for SealingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.len() == CHUNK_BYTES {
            self.seal(MORE)?;
        }
        let taken = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Why nothing is sealed.
#[derive(Debug)]
pub(super) enum SealingError {
    Io(io::Error),
    Provider(rustls::Error),
}

/// Opens what a [`SealingWriter`] wrote, a chunk at a time; nothing is given on that is not proven.
pub(super) struct OpeningReader<R: Read> {
    from: R,
    opener: Box<dyn HpkeOpener>,
    /// The next chunk, sealed.
    ahead: Vec<u8>,
    chunk: Zeroizing<Vec<u8>>,
    taken: usize,
}

impl<R: Read> OpeningReader<R> {
    /// `header`: as it was sealed with. An error of kind `InvalidData`: it does not open.
    pub fn begin(mut from: R, header: &[u8], key: &OperatorKey) -> io::Result<Self> {
        let mut secret = vec![0; ENCAPSULATED_BYTES];
        from.read_exact(&mut secret)?;
        let opener = SUITE.setup_opener(&EncapsulatedSecret(secret), header, &key.hpke()).map_err(does_not_open)?;
        let ahead = read_chunk(&mut from)?;
        Ok(Self { from, opener, ahead, chunk: Zeroizing::default(), taken: 0 })
    }

    fn open_next(&mut self) -> io::Result<()> {
        let sealed = std::mem::replace(&mut self.ahead, read_chunk(&mut self.from)?);
        let which = if self.ahead.is_empty() { LAST } else { MORE };
        self.chunk = Zeroizing::new(self.opener.open(which, &sealed).map_err(does_not_open)?);
        self.taken = 0;
        Ok(())
    }
}

impl<R: Read> Read for OpeningReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.chunk.len() && !self.ahead.is_empty() {
            self.open_next()?;
        }
        let rest = &self.chunk[self.taken..];
        let given = rest.len().min(into.len());
        into[..given].copy_from_slice(&rest[..given]);
        self.taken += given;
        Ok(given)
    }
}

fn read_chunk(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES + TAG_BYTES);
    from.take((CHUNK_BYTES + TAG_BYTES) as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}

fn does_not_open(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
