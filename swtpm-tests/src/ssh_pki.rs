//! An SSH authority and hosts with its certificates, made by OpenSSH's own ssh-keygen.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::deployment::{TRUST_DOMAIN, open_directory};

/// Files in a directory of their own.
#[derive(Debug)]
pub struct SshPki {
    directory: TempDir,
}

/// A host's key and certificate.
#[derive(Debug)]
pub struct SshHost {
    key: PathBuf,
    certificate: PathBuf,
    /// The SPIFFE ID of the agent that attests with it.
    pub agent_id: String,
}

impl SshPki {
    /// With an authority whose key is of that kind.
    pub fn new(kind: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("ssh-pki-").tempdir().expect("directory");
        open_directory(directory.path());
        keygen(&["-t", kind, "-N", "", "-f"], &directory.path().join("ca"));
        Self { directory }
    }

    /// The `NodeAttestor` block of a server of either make that believes it, with further lines.
    pub fn server_block(&self, lines: &str) -> String {
        let path = self.directory.path().join("ca.pub");
        format!(
            "NodeAttestor \"sshpop\" {{ plugin_data {{ cert_authorities_path = \"{}\"\n{lines} }} }}",
            path.display()
        )
    }

    /// A host's key of that kind, `-t` and `-b` of ssh-keygen, certified for that name; `more`: further flags of the certificate's.
    pub fn issue(&self, (kind, bits): (&str, &str), name: &str, more: &[&str]) -> SshHost {
        let at = |suffix: &str| self.directory.path().join(format!("{name}{suffix}"));
        keygen(&["-t", kind, "-b", bits, "-N", "", "-f"], &at(""));
        let authority = self.directory.path().join("ca").display().to_string();
        let flags = ["-s", &authority, "-I", name, "-n", name];
        keygen(&[&flags[..], more].concat(), &at(".pub"));
        let certificate = at("-cert.pub");
        let fingerprint = fingerprint(&certificate);
        let agent_id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/sshpop/{fingerprint}");
        SshHost { key: at(""), certificate, agent_id }
    }
}

impl SshHost {
    /// The `NodeAttestor` block of an agent of either make.
    pub fn agent_block(&self) -> String {
        let (key, certificate) = (self.key.display(), self.certificate.display());
        format!(
            "NodeAttestor \"sshpop\" {{ plugin_data {{ host_key_path = \"{key}\"\nhost_cert_path = \"{certificate}\" }} }}"
        )
    }

    /// The file of the key.
    pub fn key(&self) -> &Path {
        &self.key
    }
}

fn keygen(flags: &[&str], file: &Path) {
    let output =
        Command::new("ssh-keygen").arg("-q").args(flags).arg(file).output().expect("openssh-client is installed");
    assert!(output.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// As SPIRE has it.
fn fingerprint(certificate: &Path) -> String {
    use aws_lc_rs::digest::{SHA256, digest};
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let line = std::fs::read_to_string(certificate).expect("a certificate");
    let blob = STANDARD.decode(line.split_whitespace().nth(1).expect("base64")).expect("base64");
    URL_SAFE_NO_PAD.encode(digest(&SHA256, &blob))
}
