//! `NodeAttestor "sshpop"`: an SSH host certificate that the device was given, and the host's key, in files as OpenSSH has them.

mod host_key;
mod openssh_key;

use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironroot_attest::node::sshpop::{
    ATTESTATION_TYPE, Challenge, Evidence, MAX_CERTIFICATE_BYTES, NONCE_BYTES, Response, SshPopRefusal,
    challenged_bytes,
};
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::Section;
use ironroot_text::secret_file::{self, Readers, SecretFileError};
use ironroot_text::{FileError, HumanFile};
use thiserror::Error;

use host_key::HostKey;
pub use openssh_key::NotAHostKey;

/// The attestation type.
pub(super) const TYPE: &str = ATTESTATION_TYPE;

/// Source: SPIRE.
const DEFAULT_KEY_PATH: &str = "/etc/ssh/ssh_host_rsa_key";
const DEFAULT_CERTIFICATE_PATH: &str = "/etc/ssh/ssh_host_rsa_key-cert.pub";
/// Largest file accepted, bytes: a key, or a certificate in base64.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// Where the host's certificate and its key are. Read at each attestation: whatever renews them needs no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFiles {
    key: PathBuf,
    certificate: PathBuf,
}

/// Why the host's certificate did not attest. Each message names the file.
#[derive(Debug, Error)]
pub enum SshPopFailure {
    /// The certificate cannot be read, or is no text.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key cannot be read, or every user of the machine could attest as this host.
    #[error("the file with the host's private key is not used")]
    KeyFile(#[from] SecretFileError),
    /// There is something else in it.
    #[error("{0} holds no SSH host key that can attest")]
    Key(PathBuf, #[source] NotAHostKey),
    /// It is no line as ssh-keygen writes it.
    #[error("{0} holds no SSH certificate: a type, base64, and a comment")]
    Form(PathBuf),
    /// What the line says is none.
    #[error("{0} holds no SSH certificate that can attest")]
    Certificate(PathBuf, #[source] SshPopRefusal),
    /// They are not of one another.
    #[error("the key {key} is not that of the certificate {certificate}")]
    OtherKey {
        /// The file of the key.
        key: PathBuf,
        /// That of the certificate.
        certificate: PathBuf,
    },
    /// The server's challenge is none.
    #[error("the server's challenge cannot be answered")]
    Challenge(#[source] SshPopRefusal),
    /// The key does not sign.
    #[error("the host's key does not sign")]
    Sign,
}

/// Reads the keys that `NodeAttestor "sshpop"` has.
pub(super) fn read(data: &Section<'_>) -> Option<HostFiles> {
    let path = |key, default: &str| data.path(key).unwrap_or_else(|| PathBuf::from(default));
    let files = HostFiles {
        key: path("host_key_path", DEFAULT_KEY_PATH),
        certificate: path("host_cert_path", DEFAULT_CERTIFICATE_PATH),
    };
    data.look("host_cert_path", || files.prover_now().map(drop).map_err(|error| describe(&error)));
    Some(files)
}

impl HostFiles {
    /// Reads both.
    pub(super) async fn prover(&self) -> Result<Prover, SshPopFailure> {
        let files = self.clone();
        let reading = tokio::task::spawn_blocking(move || files.prover_now());
        reading.await.expect("reading files does not panic")
    }

    fn prover_now(&self) -> Result<Prover, SshPopFailure> {
        let evidence = Evidence { certificate: read_certificate(&self.certificate)? };
        let shown = evidence.certificate();
        let shown = shown.map_err(|error| SshPopFailure::Certificate(self.certificate.clone(), error))?;
        let text = secret_file::read(&self.key, MAX_FILE_BYTES, Readers::OwnerAndGroup)?;
        let key = openssh_key::read(&text).map_err(|error| SshPopFailure::Key(self.key.clone(), error))?;
        match key.public_blob() == shown.key().to_blob() {
            true => Ok(Prover { evidence, key }),
            false => {
                let (key, certificate) = (self.key.clone(), self.certificate.clone());
                Err(SshPopFailure::OtherKey { key, certificate })
            }
        }
    }
}

/// Proves that this device has the key of its certificate.
pub(super) struct Prover {
    evidence: Evidence,
    key: HostKey,
}

impl Prover {
    /// The first message.
    pub(super) fn evidence(&self) -> Vec<u8> {
        self.evidence.to_json()
    }

    /// The answer to a challenge.
    pub(super) fn respond(&self, challenge: &[u8]) -> Result<Vec<u8>, SshPopFailure> {
        let challenge = Challenge::from_json(challenge).map_err(SshPopFailure::Challenge)?;
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).expect("the kernel's random source does not fail once it has been seeded");
        let signature = self.key.sign(&challenged_bytes(&challenge.nonce, &nonce)).ok_or(SshPopFailure::Sign)?;
        Ok(Response { nonce, signature }.to_json())
    }
}

fn read_certificate(path: &Path) -> Result<Vec<u8>, SshPopFailure> {
    let file = HumanFile::regular(path, MAX_FILE_BYTES)?;
    let form = || SshPopFailure::Form(path.to_owned());
    let blob = file.text().split_ascii_whitespace().nth(1).ok_or_else(form)?;
    STANDARD.decode(blob).ok().filter(|blob| blob.len() <= MAX_CERTIFICATE_BYTES).ok_or_else(form)
}
