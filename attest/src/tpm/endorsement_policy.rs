//! The policy that an endorsement key asks for before each use.

use tss_esapi::handles::AuthHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest, DigestList, Nonce};

use super::connection::{Connection, NO_SESSION};
use super::endorsement_kind::EndorsementKind;
use super::error::TpmError;
use super::hierarchy::KeyHierarchy;
use super::loaded::Loaded;
use super::sessions::{Encrypted, policy};

impl Connection {
    /// A policy session salted to the endorsement key `ek`, for its use. Answers are encrypted, commands are not: what is
    /// sent to an endorsement key is public or encrypted already, and one implementation cannot decrypt commands.
    pub fn endorsement_session(&mut self, ek: &Loaded, kind: EndorsementKind) -> Result<AuthSession, TpmError> {
        let hash = if kind.has_policy_b() { HashingAlgorithm::Sha384 } else { HashingAlgorithm::Sha256 };
        let session = self.policy_session_with(ek, Encrypted::Response, hash)?;
        self.satisfy_endorsement_policy(session, kind)?;
        Ok(session)
    }

    /// Makes a session that the endorsement key was used with ready for its next use. The policy is started over: a TPM resets
    /// it after each use by itself, but not every implementation does.
    pub fn renew_endorsement_policy(&mut self, session: AuthSession, kind: EndorsementKind) -> Result<(), TpmError> {
        let restarted = policy(session)?;
        self.command("TPM2_PolicyRestart", NO_SESSION, |esys| esys.policy_restart(restarted))?;
        self.satisfy_endorsement_policy(session, kind)
    }

    /// What the EK's policy asks for before each use: TPM2_PolicySecret(TPM_RH_ENDORSEMENT), and for PolicyB that this is one
    /// of its two branches (EK Credential Profile §B.6).
    fn satisfy_endorsement_policy(&mut self, session: AuthSession, kind: EndorsementKind) -> Result<(), TpmError> {
        let policy = policy(session)?;
        self.authorized_by(KeyHierarchy::Endorsement, |tpm, authorization| {
            tpm.command("TPM2_PolicySecret", (Some(authorization), None, None), |esys| {
                esys.policy_secret(
                    policy,
                    AuthHandle::Endorsement,
                    Nonce::default(),
                    Digest::default(),
                    Nonce::default(),
                    None,
                )
            })
        })?;
        if kind.has_policy_b() {
            let branches = policy_b_branches()?;
            self.command("TPM2_PolicyOR", NO_SESSION, |esys| esys.policy_or(policy, branches.clone()))?;
        }
        Ok(())
    }
}

/// PolicyA-SHA384 (the endorsement hierarchy's authorization) and PolicyC-SHA384 (what an NV index of the maker says), whose OR
/// is PolicyB-SHA384. Source: EK Credential Profile §B.6.3 to B.6.5.
fn policy_b_branches() -> Result<DigestList, TpmError> {
    const POLICY_A: [u8; 48] = [
        0x8b, 0xbf, 0x22, 0x66, 0x53, 0x7c, 0x17, 0x1c, 0xb5, 0x6e, 0x40, 0x3c, 0x4d, 0xc1, 0xd4, 0xb6, 0x4f, 0x43,
        0x26, 0x11, 0xdc, 0x38, 0x6e, 0x6f, 0x53, 0x20, 0x50, 0xc3, 0x27, 0x8c, 0x93, 0x0e, 0x14, 0x3e, 0x8b, 0xb1,
        0x13, 0x38, 0x24, 0xcc, 0xb4, 0x31, 0x05, 0x38, 0x71, 0xc6, 0xdb, 0x53,
    ];
    const POLICY_C: [u8; 48] = [
        0xd6, 0x03, 0x2c, 0xe6, 0x1f, 0x2f, 0xb3, 0xc2, 0x40, 0xeb, 0x3c, 0xf6, 0xa3, 0x32, 0x37, 0xef, 0x2b, 0x6a,
        0x16, 0xf4, 0x29, 0x3c, 0x22, 0xb4, 0x55, 0xe2, 0x61, 0xcf, 0xfd, 0x21, 0x7a, 0xd5, 0xb4, 0x94, 0x7c, 0x2d,
        0x73, 0xe6, 0x30, 0x05, 0xee, 0xd2, 0xdc, 0x2b, 0x35, 0x93, 0xd1, 0x65,
    ];
    let bad = |e| TpmError::of("TPM2_PolicyOR", e);
    let mut branches = DigestList::new();
    for digest in [POLICY_A, POLICY_C] {
        branches.add(Digest::try_from(digest.as_slice()).map_err(bad)?).map_err(bad)?;
    }
    Ok(branches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structures::Hash;

    /// PolicyB-SHA384, EK Credential Profile §B.6.5; TPM2_PolicyOR extends zeros with its command code and the branches
    /// (Part 3 §23.6).
    #[test]
    fn the_branches_are_those_of_the_template() {
        let branches = policy_b_branches().expect("branches");
        let [a, c] = branches.value() else { panic!("two branches") };
        let or = Hash::Sha384.digest(&[&[0; 48], &0x171u32.to_be_bytes(), a.value(), c.value()]);
        let hex: String = or.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        assert!(hex.starts_with("b26e7d28d11a50bc53d882bcf5fd3a1a"), "{hex}");
    }
}
