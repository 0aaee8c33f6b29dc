//! Host certificates. Source: OpenSSH, PROTOCOL.certkeys.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::authorities::HostAuthorities;
use super::key::{Purpose, SshKey};
use super::refusal::SshPopRefusal;
use super::signature::SshSignature;
use super::wire::{self, Reader};

/// What stands behind the type of a key in that of its certificates.
const SUFFIX: &str = "-cert-v01@openssh.com";
/// A certificate of a host, not of a user.
const HOST: u32 = 2;
/// Most names in a certificate.
const MAX_PRINCIPALS: usize = 256;

/// A certificate as it was shown; nothing of it is believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownCertificate {
    blob: Vec<u8>,
    /// How much of it is signed.
    signed: usize,
    key: SshKey,
    serial: u64,
    kind: u32,
    key_id: String,
    principals: Vec<String>,
    valid: (u64, u64),
    has_critical_options: bool,
    authority: SshKey,
    signature: SshSignature,
}

/// A certificate that an authority of ours has signed, for this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCertificate(ShownCertificate);

impl ShownCertificate {
    /// Parses one whole certificate.
    pub fn parse(blob: &[u8]) -> Result<Self, SshPopRefusal> {
        let mut reader = Reader::new(blob);
        let kind_of_key = reader.text()?;
        let kind_of_key = kind_of_key.strip_suffix(SUFFIX).ok_or(SshPopRefusal::NoCertificate)?;
        reader.string()?;
        let key = SshKey::read(kind_of_key, &mut reader)?;
        let (serial, kind) = (reader.u64()?, reader.u32()?);
        let (key_id, principals) = (reader.text()?.to_owned(), names(reader.string()?)?);
        let valid = (reader.u64()?, reader.u64()?);
        let critical = reader.string()?;
        let [_extensions, _reserved] = [reader.string()?, reader.string()?];
        let authority = SshKey::parse(reader.string()?)?;
        let signed = blob.len() - reader.rest().len();
        let signature = SshSignature::parse(reader.string()?)?;
        reader.finish()?;
        let (blob, has_critical_options) = (blob.to_vec(), !critical.is_empty());
        Ok(Self {
            blob,
            signed,
            key,
            serial,
            kind,
            key_id,
            principals,
            valid,
            has_critical_options,
            authority,
            signature,
        })
    }

    /// The key that it is for.
    pub fn key(&self) -> &SshKey {
        &self.key
    }

    /// SHA-256 of what its authority has signed: what tells certificates apart, however the signature is written.
    pub fn signed_sha256(&self) -> [u8; 32] {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, &self.blob[..self.signed]).as_ref());
        sha256
    }

    /// Believes it, or says why not. `now_unix`: UNIX seconds.
    pub fn verify(self, authorities: &HostAuthorities, now_unix: i64) -> Result<HostCertificate, SshPopRefusal> {
        if self.kind != HOST {
            return Err(SshPopRefusal::NotAHost);
        }
        if !authorities.have(&self.authority) {
            return Err(SshPopRefusal::UnknownAuthority);
        }
        if self.principals.is_empty() {
            return Err(SshPopRefusal::NoPrincipal);
        }
        if self.has_critical_options {
            return Err(SshPopRefusal::CriticalOption);
        }
        let now = u64::try_from(now_unix).unwrap_or_default();
        if !(self.valid.0..self.valid.1).contains(&now) {
            return Err(SshPopRefusal::Ended);
        }
        self.authority.verify(&self.blob[..self.signed], &self.signature, Purpose::Certificate)?;
        Ok(HostCertificate(self))
    }
}

impl HostCertificate {
    /// The key that it is for.
    pub fn key(&self) -> &SshKey {
        &self.0.key
    }

    /// Its number, as its authority counts.
    pub fn serial(&self) -> u64 {
        self.0.serial
    }

    /// What its authority calls it.
    pub fn key_id(&self) -> &str {
        &self.0.key_id
    }

    /// The names of the host, at least one.
    pub fn principals(&self) -> &[String] {
        &self.0.principals
    }

    /// As [`ShownCertificate::signed_sha256`].
    pub fn signed_sha256(&self) -> [u8; 32] {
        self.0.signed_sha256()
    }

    /// What SPIRE calls it: SHA-256 of all of it, in base64 for URLs without padding.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.0.blob)
    }

    /// The same of the certificate with its signature written in another way, which its holder can do.
    pub fn other_fingerprints(&self) -> Vec<String> {
        let signed = &self.0.blob[..self.0.signed];
        let other = |signature: SshSignature| [signed, &wire::string(&signature.to_bytes())].concat();
        self.0.signature.other_forms().into_iter().map(|signature| fingerprint(&other(signature))).collect()
    }
}

fn fingerprint(blob: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, blob))
}

fn names(packed: &[u8]) -> Result<Vec<String>, SshPopRefusal> {
    let (mut reader, mut names) = (Reader::new(packed), Vec::new());
    while !reader.rest().is_empty() {
        if names.len() == MAX_PRINCIPALS {
            return Err(SshPopRefusal::TooManyPrincipals);
        }
        names.push(reader.text()?.to_owned());
    }
    Ok(names)
}
