//! An operator who signs boot states: a key made by OpenSSL, policies signed by our command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ironroot_agent::sealed_cache::SignedStates;
use ironroot_attest::pcr_policy::PolicyAuthority;
use ironroot_text::hex::hex;
use tempfile::TempDir;

use crate::deployment::binary;

/// Words for `openssl genpkey` that make a P-256 key.
pub const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// A key pair in files.
pub struct PolicyOperator {
    directory: TempDir,
}

impl PolicyOperator {
    /// With a key that `openssl genpkey` makes of these words.
    pub fn new(key: &[&str]) -> Self {
        let operator = Self { directory: tempfile::tempdir().expect("directory") };
        operator.openssl("genpkey", &[key, &["-out", "policy.key"]].concat());
        operator.openssl("pkey", &["-in", "policy.key", "-pubout", "-out", "policy.pub"]);
        operator
    }

    /// Runs OpenSSL in the operator's directory.
    pub fn openssl(&self, verb: &str, arguments: &[&str]) {
        let output = Command::new("openssl").arg(verb).args(arguments).current_dir(self.directory.path()).output();
        let output = output.expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A file of the operator's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Signs `register` of the SHA-256 bank at `value` into `into`.
    pub fn sign(&self, into: &Path, epoch: u32, register: u8, value: [u8; 32]) {
        let (epoch, register) = (epoch.to_string(), format!("{register}={}", hex(&value)));
        let output =
            self.command(into, &["-name", "an update", "-epoch", &epoch, "-pcr", &register, "-key", "policy.key"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// `policy sign`, in the operator's directory, whatever the outcome.
    pub fn command(&self, into: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary("ironroot-server"));
        command.args(["policy", "sign"]).arg(into).args(arguments).current_dir(self.directory.path());
        command.output().expect("ironroot-server starts")
    }

    /// What a device is told of the operator.
    pub fn states(&self, directory: &Path) -> SignedStates {
        let pem = std::fs::read_to_string(self.path("policy.pub")).expect("there is a public key");
        let authority = PolicyAuthority::from_pem(&pem).expect("usable");
        SignedStates { authority, directory: directory.to_owned() }
    }
}
