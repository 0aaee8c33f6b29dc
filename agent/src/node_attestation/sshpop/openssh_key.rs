//! Private keys in the form that OpenSSH gives them since 7.8, without a password. Source: OpenSSH, PROTOCOL.key.

use aws_lc_rs::rsa::{self, KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironroot_attest::node::sshpop::wire::{Damaged, Reader};
use num_bigint::BigUint;
use thiserror::Error;
use zeroize::Zeroizing;

use super::host_key::{HostKey, HostKeyKind};

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// Why a file holds no key that can attest.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotAHostKey {
    /// Another form, or none.
    #[error("it is not in OpenSSH's own form (BEGIN OPENSSH PRIVATE KEY); ssh-keygen -p -f FILE writes it so")]
    Form,
    /// Nobody could type the password.
    #[error("it has a password; ssh-keygen -p -N \"\" -f FILE takes it off")]
    Encrypted,
    /// Cut off, or damaged.
    #[error("it cannot be read: {0}")]
    Damaged(#[from] Damaged),
    /// Of a kind that does not attest.
    #[error("keys of type {0:?} do not attest: use ed25519, ecdsa or rsa")]
    Kind(String),
    /// The numbers are no key.
    #[error("its numbers are no key")]
    Numbers,
}

/// Reads a file's bytes.
pub(super) fn read(file: &[u8]) -> Result<HostKey, NotAHostKey> {
    let text = std::str::from_utf8(file).map_err(|_| NotAHostKey::Form)?;
    let armoured = text.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).ok_or(NotAHostKey::Form)?;
    let base64 = Zeroizing::new(armoured.split_ascii_whitespace().collect::<String>());
    let bytes = Zeroizing::new(STANDARD.decode(base64.as_bytes()).map_err(|_| NotAHostKey::Form)?);
    let mut reader = Reader::new(bytes.strip_prefix(MAGIC).ok_or(NotAHostKey::Form)?);
    let [cipher, derivation] = [reader.string()?, reader.string()?];
    reader.string()?;
    if cipher != b"none" || derivation != b"none" {
        return Err(NotAHostKey::Encrypted);
    }
    if reader.u32()? != 1 {
        return Err(NotAHostKey::Form);
    }
    let (public, private) = (reader.string()?.to_vec(), reader.string()?);
    reader.finish()?;
    Ok(HostKey { kind: private_key(private)?, public })
}

/// Two equal numbers, the key, a comment, and padding.
fn private_key(bytes: &[u8]) -> Result<HostKeyKind, NotAHostKey> {
    let mut reader = Reader::new(bytes);
    if reader.u32()? != reader.u32()? {
        return Err(NotAHostKey::Numbers);
    }
    let kind = reader.text()?;
    Ok(match kind {
        "ssh-ed25519" => {
            let (public, private) = (reader.string()?, reader.string()?);
            // The seed, and the public half once more.
            let seed = private.get(..32).ok_or(NotAHostKey::Numbers)?;
            let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_| NotAHostKey::Numbers)?;
            HostKeyKind::Ed25519(Box::new(pair))
        }
        "ssh-rsa" => HostKeyKind::Rsa(Box::new(rsa_pair(&mut reader)?)),
        _ => {
            let (algorithm, bytes) = match kind {
                "ecdsa-sha2-nistp256" => (&ECDSA_P256_SHA256_FIXED_SIGNING, 32),
                "ecdsa-sha2-nistp384" => (&ECDSA_P384_SHA384_FIXED_SIGNING, 48),
                "ecdsa-sha2-nistp521" => (&ECDSA_P521_SHA512_FIXED_SIGNING, 66),
                _ => return Err(NotAHostKey::Kind(kind.chars().take(64).collect())),
            };
            reader.string()?;
            let (point, number) = (reader.string()?, reader.positive()?);
            let zeros = usize::checked_sub(bytes, number.len()).ok_or(NotAHostKey::Numbers)?;
            let scalar = Zeroizing::new([&vec![0; zeros], number].concat());
            let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &scalar, point);
            let pair = pair.map_err(|_| NotAHostKey::Numbers)?;
            HostKeyKind::Ecdsa(Box::new(pair), kind.to_owned())
        }
    })
}

/// With two exponents that OpenSSH leaves out: anybody who has the other numbers reckons them out.
fn rsa_pair(reader: &mut Reader<'_>) -> Result<rsa::KeyPair, NotAHostKey> {
    let [n, e, d, q_inverse, p, q] = [(); 6].map(|()| reader.positive());
    let (n, e, d, q_inverse, p, q) = (n?, e?, d?, q_inverse?, p?, q?);
    let exponent = |prime: &[u8]| {
        let less_one = BigUint::from_bytes_be(prime) - 1u32;
        let is_above_zero = less_one > BigUint::ZERO;
        is_above_zero.then(|| Zeroizing::new((BigUint::from_bytes_be(d) % less_one).to_bytes_be()))
    };
    let (dp, dq) = exponent(p).zip(exponent(q)).ok_or(NotAHostKey::Numbers)?;
    let public_key = PublicKeyComponents { n, e };
    let numbers = KeyPairComponents { public_key, d, p, q, dP: &dp[..], dQ: &dq[..], qInv: q_inverse };
    rsa::KeyPair::from_components(&numbers).map_err(|_| NotAHostKey::Numbers)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use aws_lc_rs::signature::KeyPair;

    use super::*;

    fn made(kind: &str, bits: &str, password: &str) -> Vec<u8> {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("key");
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", kind, "-b", bits, "-N", password, "-f"]).arg(&file);
        assert!(command.status().expect("openssh-client is installed").success());
        std::fs::read(&file).expect("a key")
    }

    #[test]
    fn keys_that_ssh_keygen_makes_are_read_and_sign() {
        for (kind, bits, format) in [
            ("ed25519", "256", "ssh-ed25519"),
            ("ecdsa", "256", "ecdsa-sha2-nistp256"),
            ("ecdsa", "384", "ecdsa-sha2-nistp384"),
            ("ecdsa", "521", "ecdsa-sha2-nistp521"),
            ("rsa", "2048", "rsa-sha2-256"),
        ] {
            let key = read(&made(kind, bits, "")).unwrap_or_else(|error| panic!("{kind} {bits}: {error}"));
            assert_eq!(key.sign(b"text").expect("signed").format, format);
            if let HostKeyKind::Ed25519(pair) = &key.kind {
                assert!(key.public_blob().ends_with(pair.public_key().as_ref()));
            }
        }
    }

    #[test]
    fn what_is_no_key_without_a_password_is_refused_with_what_to_do() {
        let refused = |file: &[u8]| read(file).map(drop).expect_err("no key");
        assert_eq!(refused(&made("ed25519", "256", "a secret")), NotAHostKey::Encrypted);
        assert_eq!(refused(b"-----BEGIN PRIVATE KEY-----"), NotAHostKey::Form);
        assert_eq!(refused(format!("{BEGIN}\nAAAA\n{END}\n").as_bytes()), NotAHostKey::Form);
        let good = made("ed25519", "256", "");
        let cut = [&good[..120], format!("\n{END}\n").as_bytes()].concat();
        assert!(matches!(refused(&cut), NotAHostKey::Damaged(_) | NotAHostKey::Form));
    }

    #[test]
    fn key_files_survive_damage() {
        ironroot_fuzz::Target::new("OpenSSH private keys").seed(made("ed25519", "256", "")).survives(|bytes| {
            let _ = read(bytes);
        });
    }
}
