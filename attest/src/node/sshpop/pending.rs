//! A challenge that is out, and the judgement of its answer.

use aws_lc_rs::digest::{SHA256, digest};

use super::certificate::{HostCertificate, ShownCertificate};
use super::key::Purpose;
use super::messages::{Challenge, Evidence, Response};
use super::refusal::SshPopRefusal;
use super::{ANSWER_SECONDS, NONCE_BYTES, authorities::HostAuthorities};

/// A certificate that is believed. Whether the device has its key is what the challenge finds out.
#[derive(Clone, Debug)]
pub struct Verified(HostCertificate);

/// A challenge that waits for its one answer.
#[derive(Debug)]
pub struct Pending {
    certificate: HostCertificate,
    challenge: Challenge,
    issued_unix: i64,
    /// How long its answer may take.
    seconds: i64,
}

/// A device that has the key of its certificate. Made by [`Pending::complete`] alone.
#[derive(Clone, Debug)]
pub struct AttestedHost {
    certificate: HostCertificate,
}

/// What is signed: SHA-256 of the server's nonce and the device's.
pub fn challenged_bytes(challenge: &[u8; NONCE_BYTES], response: &[u8; NONCE_BYTES]) -> Vec<u8> {
    digest(&SHA256, &[*challenge, *response].concat()).as_ref().to_vec()
}

impl Evidence {
    /// Reads the certificate; nothing of it is believed.
    pub fn certificate(&self) -> Result<ShownCertificate, SshPopRefusal> {
        ShownCertificate::parse(&self.certificate)
    }
}

impl ShownCertificate {
    /// Believes it, or says why not. `now_unix`: UNIX seconds.
    pub fn verified(self, authorities: &HostAuthorities, now_unix: i64) -> Result<Verified, SshPopRefusal> {
        self.verify(authorities, now_unix).map(Verified)
    }
}

impl Verified {
    /// What it says.
    pub fn certificate(&self) -> &HostCertificate {
        &self.0
    }

    /// Asks for a signature. `nonce`: fresh from a cryptographic random source, and used once.
    pub fn challenge(self, nonce: [u8; NONCE_BYTES], now_unix: i64) -> (Pending, Challenge) {
        let challenge = Challenge { nonce };
        (Pending { certificate: self.0, challenge, issued_unix: now_unix, seconds: ANSWER_SECONDS }, challenge)
    }
}

impl Pending {
    /// Waits for its answer as long as for that of another challenge, `seconds`, which comes with it; not shorter than for itself.
    pub fn wait_for(&mut self, seconds: i64) {
        self.seconds = self.seconds.max(seconds);
    }

    /// Judges the answer. `response`: the message as received. `now_unix`: UNIX seconds, by the clock of the challenge.
    pub fn complete(self, response: &[u8], now_unix: i64) -> Result<AttestedHost, SshPopRefusal> {
        let seconds = now_unix.saturating_sub(self.issued_unix);
        if !(0..=self.seconds).contains(&seconds) {
            return Err(SshPopRefusal::Late(seconds));
        }
        let Response { nonce, signature } = Response::from_json(response)?;
        let signed = challenged_bytes(&self.challenge.nonce, &nonce);
        self.certificate.key().verify(&signed, &signature, Purpose::Possession)?;
        Ok(AttestedHost { certificate: self.certificate })
    }
}

impl AttestedHost {
    /// What its certificate says.
    pub fn certificate(&self) -> &HostCertificate {
        &self.certificate
    }
}
