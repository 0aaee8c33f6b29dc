//! A host's key that signs, by aws-lc-rs.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256};
use ironroot_attest::node::sshpop::{SshSignature, wire};

/// See the module. With the blob of its public half.
pub(super) struct HostKey {
    pub(super) kind: HostKeyKind,
    pub(super) public: Vec<u8>,
}

pub(super) enum HostKeyKind {
    Ed25519(Box<Ed25519KeyPair>),
    /// With what SSH calls it: `ecdsa-sha2-` and its curve.
    Ecdsa(Box<EcdsaKeyPair>, String),
    Rsa(Box<rsa::KeyPair>),
}

impl HostKey {
    /// The public half, as certificates have it.
    pub(super) fn public_blob(&self) -> &[u8] {
        &self.public
    }

    /// A signature; none if the library makes none. Of RSA keys with SHA-256, which SPIRE's server takes: its agent signs with SHA-1.
    pub(super) fn sign(&self, message: &[u8]) -> Option<SshSignature> {
        let random = SystemRandom::new();
        let (format, blob) = match &self.kind {
            HostKeyKind::Ed25519(key) => ("ssh-ed25519".to_owned(), key.sign(message).as_ref().to_vec()),
            HostKeyKind::Ecdsa(key, name) => {
                let signature = key.sign(&random, message).ok()?;
                let (r, s) = signature.as_ref().split_at_checked(signature.as_ref().len() / 2)?;
                (name.clone(), [wire::positive(r), wire::positive(s)].concat())
            }
            HostKeyKind::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                ("rsa-sha2-256".to_owned(), signature)
            }
        };
        Some(SshSignature { format, blob })
    }
}
