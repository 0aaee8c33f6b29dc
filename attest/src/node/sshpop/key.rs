//! Public keys.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

use super::refusal::SshPopRefusal;
use super::signature::SshSignature;
use super::wire::{self, Reader};

/// Bits of RSA keys that are verified with.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A key that verifies signatures. Source: RFC 4253, 6.6; RFC 5656, 3.1; RFC 8709, 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshKey(Numbers);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Numbers {
    Ed25519(Vec<u8>),
    Ecdsa(Curve, Vec<u8>),
    Rsa { e: Vec<u8>, n: Vec<u8> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

/// What a signature is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A certificate: who makes one chooses its text.
    Certificate,
    /// That somebody has the key: fresh nonces.
    Possession,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
            Self::P521 => "nistp521",
        }
    }

    /// Bytes of a coordinate, and of a number of a signature.
    fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

impl SshKey {
    /// Reads a key by itself: its type, then its numbers.
    pub fn parse(blob: &[u8]) -> Result<Self, SshPopRefusal> {
        let mut reader = Reader::new(blob);
        let kind = reader.text()?;
        let key = Self::read(kind, &mut reader)?;
        reader.finish()?;
        Ok(key)
    }

    /// The numbers of a key of that kind.
    pub(super) fn read(kind: &str, reader: &mut Reader<'_>) -> Result<Self, SshPopRefusal> {
        let unknown = || SshPopRefusal::KeyKind(kind.chars().take(64).collect());
        Ok(Self(match kind {
            "ssh-ed25519" => {
                let point = reader.string()?;
                (point.len() == 32).then(|| Numbers::Ed25519(point.to_vec())).ok_or(SshPopRefusal::Key)?
            }
            "ssh-rsa" => {
                let (e, n) = (reader.positive()?.to_vec(), reader.positive()?.to_vec());
                RSA_BYTES.contains(&n.len()).then_some(Numbers::Rsa { e, n }).ok_or(SshPopRefusal::Key)?
            }
            _ => {
                let name = kind.strip_prefix("ecdsa-sha2-").ok_or_else(unknown)?;
                let curve = Curve::ALL.into_iter().find(|curve| curve.name() == name).ok_or_else(unknown)?;
                let (said, point) = (reader.text()?, reader.string()?);
                let is_point = said == name && point.len() == 1 + 2 * curve.bytes() && point.first() == Some(&4);
                is_point.then(|| Numbers::Ecdsa(curve, point.to_vec())).ok_or(SshPopRefusal::Key)?
            }
        }))
    }

    /// Its type: `ssh-ed25519`, `ssh-rsa`, or `ecdsa-sha2-` and a curve.
    pub fn kind(&self) -> String {
        match &self.0 {
            Numbers::Ed25519(_) => "ssh-ed25519".to_owned(),
            Numbers::Ecdsa(curve, _) => format!("ecdsa-sha2-{}", curve.name()),
            Numbers::Rsa { .. } => "ssh-rsa".to_owned(),
        }
    }

    /// As it is parsed.
    pub fn to_blob(&self) -> Vec<u8> {
        let kind = wire::string(self.kind().as_bytes());
        match &self.0 {
            Numbers::Ed25519(point) => [kind, wire::string(point)].concat(),
            Numbers::Ecdsa(curve, point) => [kind, wire::string(curve.name().as_bytes()), wire::string(point)].concat(),
            Numbers::Rsa { e, n } => [kind, wire::positive(e), wire::positive(n)].concat(),
        }
    }

    /// Whether the signature is this key's over the message.
    pub(super) fn verify(
        &self,
        message: &[u8],
        signature: &SshSignature,
        purpose: Purpose,
    ) -> Result<(), SshPopRefusal> {
        let algorithm = signature.format.as_str();
        let verified = match &self.0 {
            Numbers::Ed25519(point) if algorithm == "ssh-ed25519" => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, &signature.blob)
            }
            Numbers::Ecdsa(curve, point) if algorithm == self.kind() => {
                let (verification, fixed) = (ecdsa(*curve), fixed(&signature.blob, curve.bytes())?);
                UnparsedPublicKey::new(verification, point).verify(message, &fixed)
            }
            Numbers::Rsa { e, n } => {
                let parameters = match (algorithm, purpose) {
                    ("rsa-sha2-256", _) => &RSA_PKCS1_2048_8192_SHA256,
                    ("rsa-sha2-512", _) => &RSA_PKCS1_2048_8192_SHA512,
                    ("ssh-rsa", Purpose::Possession) => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
                    _ => return Err(SshPopRefusal::algorithm(algorithm)),
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, &signature.blob)
            }
            Numbers::Ed25519(_) | Numbers::Ecdsa(..) => return Err(SshPopRefusal::algorithm(algorithm)),
        };
        verified.map_err(|_| match purpose {
            Purpose::Certificate => SshPopRefusal::CertificateSignature,
            Purpose::Possession => SshPopRefusal::Signature,
        })
    }
}

fn ecdsa(curve: Curve) -> &'static dyn VerificationAlgorithm {
    match curve {
        Curve::P256 => &ECDSA_P256_SHA256_FIXED,
        Curve::P384 => &ECDSA_P384_SHA384_FIXED,
        Curve::P521 => &ECDSA_P521_SHA512_FIXED,
    }
}

/// r and s one behind the other, of so many bytes each. Source: RFC 5656, 3.1.2.
fn fixed(blob: &[u8], bytes: usize) -> Result<Vec<u8>, SshPopRefusal> {
    let mut reader = Reader::new(blob);
    let numbers = [reader.positive()?, reader.positive()?];
    reader.finish()?;
    let mut fixed = Vec::with_capacity(2 * bytes);
    for number in numbers {
        let zeros = bytes.checked_sub(number.len()).ok_or(SshPopRefusal::Signature)?;
        fixed.extend(std::iter::repeat_n(0, zeros).chain(number.iter().copied()));
    }
    Ok(fixed)
}
