//! `tpm provision`: makes a DevID key in the chip and what a CA needs to certify it.
//!
//! ```text
//!  chip ── EK, AK, DevID key ──► devid.pub, devid.priv      for agents, SPIRE's too
//!                           └──► devid.csr, devid.tcg-csr   for a CA ──► devid.pem
//! ```
//! Nothing stays in the chip: its keys are wrapped in the files, or are made again from templates. So undoing it is removing them.

mod files;
mod request;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use ironroot_attest::tpm::{
    Chip, DevIdAlgorithm, DevIdKey, DevIdRequest, EndorsementChoice, EndorsementKind, HierarchyPassword, Tpm,
    TpmAddress, TpmError, TpmSettings,
};
use ironroot_shell::command_line::{CommandError, Output, Reply};
use ironroot_text::hex::hex;
use serde_json::json;

use super::{chip_settings, unopened};
use crate::config::{DEFAULT_TPM, PasswordSource};
use files::DevIdDirectory;

/// Where the files go unless another place is named.
const DEFAULT_DIRECTORY: &str = "/etc/ironroot/devid";
/// Longest model or serial number, bytes.
const MAX_TEXT_BYTES: usize = 64;

/// Makes a key in this device's TPM that a CA is to certify (a DevID), for NodeAttestor "tpm_devid" of this agent or SPIRE's.
#[derive(Debug, Args)]
#[command(after_help = "Writes four files and overwrites none:

  devid.pub, devid.priv   the key, wrapped by the TPM: of use in this TPM alone. SPIRE's agent reads them as well
  devid.csr               a request for its certificate, PEM of PKCS #10, as every CA takes it
  devid.tcg-csr           the same as the TCG has it (TCG-CSR-IDEVID): with the certificate of the endorsement key, and the word of an
                          attestation key that the key is in the TPM, for a CA that looks at it

The CA's answer belongs beside them as devid.pem: the certificate, then what is between it and its root. Whoever certifies devid.csr alone
believes whoever brings it: do that where the device is in your hands. Nothing is kept in the TPM, and none of its persistent
handles is used or changed; -undo removes the files, and the key is gone with them.

Example: ironroot-agent tpm provision -serial SN-0001 -model gateway-2
Example: ironroot-agent tpm provision -directory /mnt/usb/SN-0001 -algorithm rsa2048 -passwordFile /etc/ironroot/devid.password
Example: openssl x509 -req -in devid.csr -CA ca.pem -CAkey ca.key -days 3650 -copy_extensions copy -out devid.pem
Example: ironroot-agent tpm provision -undo")]
pub(in crate::cli) struct Provision {
    /// Where the files go; made if it is missing
    #[arg(long, value_name = "PATH", default_value = DEFAULT_DIRECTORY)]
    directory: PathBuf,
    /// What the key signs with
    #[arg(long, value_name = "KIND", value_enum, default_value = "p256")]
    algorithm: Algorithm,
    /// The device's serial number: in both requests, and the certificate's common name unless -commonName says another
    #[arg(long, value_name = "TEXT", value_parser = short_text)]
    serial: Option<String>,
    /// The device's model, in the TCG's request
    #[arg(long, value_name = "TEXT", value_parser = short_text, default_value = "device")]
    model: String,
    /// The certificate's common name; without it and -serial it is devid- and the first digits of the endorsement key's hash
    #[arg(long = "commonName", value_name = "TEXT", value_parser = short_text)]
    common_name: Option<String>,
    /// File with a password that each use of the key will ask for
    #[arg(long = "passwordFile", value_name = "PATH")]
    password_file: Option<PathBuf>,
    /// Where the TPM is: a device, swtpm:host=IP,port=N or mssim:host=IP,port=N; /dev/tpmrm0 if neither this nor -config is given
    #[arg(long, value_name = "ADDRESS")]
    tpm: Option<TpmAddress>,
    /// The agent's configuration file, for its TPM and the passwords of the hierarchies
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Which endorsement key is to vouch: auto, p256, rsa2048, p384, rsa3072 or rsa4096; SPIRE's server knows rsa2048 alone
    #[arg(long, value_name = "KIND", default_value = "rsa2048")]
    ek: EndorsementChoice,
    /// File with the password of the owner hierarchy, if somebody has set one
    #[arg(long = "ownerPasswordFile", value_name = "PATH")]
    owner_password_file: Option<PathBuf>,
    /// File with the password of the endorsement hierarchy, if somebody has set one
    #[arg(long = "endorsementPasswordFile", value_name = "PATH")]
    endorsement_password_file: Option<PathBuf>,
    /// Remove what an earlier run wrote into the directory, but no certificate
    #[arg(long)]
    undo: bool,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Algorithm {
    P256,
    Rsa2048,
}

impl From<Algorithm> for DevIdAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::P256 => Self::P256,
            Algorithm::Rsa2048 => Self::Rsa2048,
        }
    }
}

/// What the chip has made and said.
struct Made {
    key: DevIdKey,
    ek_kind: EndorsementKind,
    ek_sha256: String,
    ek_certificate: Vec<u8>,
    attestation_key: Vec<u8>,
    certify: Vec<u8>,
    certify_signature: Vec<u8>,
}

impl Provision {
    pub(super) fn execute(self) -> ExitCode {
        let reply = if self.undo { self.undo() } else { self.provision() };
        Reply::print(&reply, self.output)
    }

    fn provision(&self) -> Result<Reply, CommandError> {
        let directory = DevIdDirectory::for_new_files(&self.directory)?;
        self.provision_into(&directory).inspect_err(|_| directory.give_up())
    }

    fn provision_into(&self, directory: &DevIdDirectory) -> Result<Reply, CommandError> {
        let settings = self.settings()?;
        let address = settings.address.to_string();
        let tpm = Tpm::open_blocking(settings).map_err(unopened)?;
        let (algorithm, password) = (self.algorithm.into(), self.password()?);
        let make = move |chip: &mut Chip| Made::of(chip, algorithm, &password);
        let made = tpm.run_blocking("make a DevID key", make).map_err(CommandError::run)?;
        let made = made.ok_or_else(|| CommandError::Malformed(NO_CERTIFICATE.to_owned()))?;
        let common_name = self.common_name(&made);
        let (key, serial) = (made.key.clone(), self.serial.clone());
        let csr = request::pkcs10(&tpm, &key, &common_name, serial.as_deref()).map_err(CommandError::run)?;
        let request = DevIdRequest {
            product_model: self.model.clone(),
            product_serial: self.serial.clone().unwrap_or_else(|| common_name.clone()),
            ek_certificate: made.ek_certificate.clone(),
            attestation_key: made.attestation_key.clone(),
            devid_key: made.key.public().to_vec(),
            certify: made.certify.clone(),
            certify_signature: made.certify_signature.clone(),
        };
        let contents = request.contents();
        let sign = move |chip: &mut Chip| chip.sign_with_devid_as_tpm(&key, &contents);
        let signature = tpm.run_blocking("sign the request", sign).map_err(CommandError::run)?;
        directory.write(&made.key, &csr, &request.signed(&signature))?;
        Ok(self.told(directory, &made, &common_name, &address))
    }

    fn undo(&self) -> Result<Reply, CommandError> {
        let removed = DevIdDirectory::of(&self.directory).remove()?;
        let names: Vec<String> = removed.iter().map(|path| path.display().to_string()).collect();
        let text = match names.as_slice() {
            [] => format!("Nothing to undo: no file of tpm provision is in {}.", self.directory.display()),
            _ => format!("Removed {}. The TPM holds nothing of it.", names.join(", ")),
        };
        Ok(Reply::new(json!({ "removed": names }), text + "\n"))
    }

    fn settings(&self) -> Result<TpmSettings, CommandError> {
        let mut settings = chip_settings(self.config.as_deref(), self.tpm.as_ref(), Some(self.ek))?;
        let read = |file: &PathBuf| PasswordSource::File(file.clone()).read().map_err(CommandError::run);
        if let Some(file) = &self.owner_password_file {
            settings.owner_password = read(file)?;
        }
        if let Some(file) = &self.endorsement_password_file {
            settings.endorsement_password = read(file)?;
        }
        Ok(settings)
    }

    fn password(&self) -> Result<HierarchyPassword, CommandError> {
        let source = self.password_file.clone().map(PasswordSource::File).unwrap_or_default();
        source.read().map_err(CommandError::run)
    }

    fn common_name(&self, made: &Made) -> String {
        let given = self.common_name.clone().or_else(|| self.serial.clone());
        given.unwrap_or_else(|| format!("devid-{}", &made.ek_sha256[..16]))
    }

    fn told(&self, directory: &DevIdDirectory, made: &Made, common_name: &str, address: &str) -> Reply {
        let path = |name: &str| directory.path(name).display().to_string();
        let password = match &self.password_file {
            Some(file) => format!("\n            devid_password_file = \"{}\"", file.display()),
            None => String::new(),
        };
        let chip = chip_line(address);
        let text = format!(
            "Made a DevID key ({algorithm:?}) for {common_name:?} in the TPM of endorsement key {ek} ({kind}).

  key      {public}, {private} (wrapped: of use in this TPM alone)
  request  {csr} (PKCS #10), {tcg} (TCG-CSR-IDEVID)

The key is this user's alone (mode 0600). An agent that runs as another user reads it once that user has it:

    chown ironroot-agent {private}

Next: have a CA certify one of the requests, and put its answer into {certificate}. Then, in agent.conf:

    NodeAttestor \"tpm_devid\" {{
        plugin_data {{
            devid_cert_path = \"{certificate}\"
            devid_pub_path = \"{public}\"
            devid_priv_path = \"{private}\"{password}{chip}
        }}
    }}

To undo it: ironroot-agent tpm provision -directory {directory} -undo
",
            algorithm = self.algorithm,
            ek = made.ek_sha256,
            kind = made.ek_kind,
            public = path(files::PUBLIC),
            private = path(files::PRIVATE),
            csr = path(files::PKCS10),
            tcg = path(files::TCG),
            certificate = path(files::CERTIFICATE),
            directory = self.directory.display(),
        );
        let json = json!({
            "common_name": common_name,
            "ek_sha256": made.ek_sha256,
            "ek_kind": made.ek_kind.to_string(),
            "public": path(files::PUBLIC),
            "private": path(files::PRIVATE),
            "request": path(files::PKCS10),
            "tcg_request": path(files::TCG),
            "certificate": path(files::CERTIFICATE),
        });
        Reply::new(json, text)
    }
}

/// The line of agent.conf that names the chip, unless it is where the agent looks by itself.
fn chip_line(address: &str) -> String {
    match address {
        DEFAULT_TPM => String::new(),
        other => format!("\n            tpm_device_path = \"{other}\""),
    }
}

const NO_CERTIFICATE: &str = "the TPM holds no certificate for that endorsement key, without which no server takes a DevID: -ek names another kind, \
     and ironroot-agent tpm show says which have one";

impl Made {
    /// None if nobody vouches for the chip.
    fn of(chip: &mut Chip, algorithm: DevIdAlgorithm, password: &HierarchyPassword) -> Result<Option<Self>, TpmError> {
        let ek = chip.endorsement_key()?;
        let Some(ek_certificate) = ek.certificates.first().cloned() else { return Ok(None) };
        let key = chip.create_devid_key(algorithm, password)?;
        let attestation_key = chip.create_rsa_attestation_key()?;
        let (certify, certify_signature) = chip.certify_devid(&key, &attestation_key)?;
        Ok(Some(Self {
            key,
            ek_kind: ek.identity.kind,
            ek_sha256: hex(&ek.identity.ek_sha256),
            ek_certificate,
            attestation_key: attestation_key.public,
            certify,
            certify_signature,
        }))
    }
}

fn short_text(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        long if long.len() > MAX_TEXT_BYTES => Err(format!("it is longer than {MAX_TEXT_BYTES} bytes")),
        odd if odd.chars().any(char::is_control) => Err("it has control characters".to_owned()),
        text => Ok(text.to_owned()),
    }
}
