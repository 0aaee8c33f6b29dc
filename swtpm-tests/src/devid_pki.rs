//! A toy PKI that certifies keys in devices' TPMs (DevIDs), for attestation type "tpm_devid", and the makers' CAs beside it.

use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use der::zeroize::Zeroizing;
use ironroot_attest::tpm::{DevIdAlgorithm, DevIdKey, HierarchyPassword, Tpm};
use ironroot_text::hex::hex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use crate::deployment::{TRUST_DOMAIN, open_directory};
use crate::manufacturer::{Manufacturer, certificates};
use crate::swtpm::Swtpm;

/// A root, an authority below it that issues DevID certificates, and a maker of chips.
pub struct DevIdPki {
    directory: TempDir,
    root: CertifiedIssuer<'static, KeyPair>,
    issuing: CertifiedIssuer<'static, KeyPair>,
    /// Whose chips the servers believe.
    pub maker: Manufacturer,
}

/// What a device was given.
pub struct DevId {
    files: PathBuf,
    password: Option<&'static str>,
    /// The SPIFFE ID of the agent that attests with it.
    pub agent_id: String,
    /// What entries can ask for: both names, both authorities.
    pub selectors: Vec<String>,
}

impl DevIdPki {
    /// Makes all of them.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("devid-pki-").tempdir().expect("directory");
        open_directory(directory.path());
        let key = || KeyPair::generate().expect("key");
        let root = CertifiedIssuer::self_signed(authority("Toy DevID Root"), key()).expect("signed");
        let issuing = CertifiedIssuer::signed_by(authority("Toy DevID CA"), key(), &root).expect("signed");
        let maker = Manufacturer::new("Toy").expect("a maker");
        fs::write(directory.path().join("root.pem"), root.pem()).expect("written");
        fs::write(directory.path().join("makers.pem"), maker.authorities_pem()).expect("written");
        Self { directory, root, issuing, maker }
    }

    /// The `NodeAttestor` block of a server of either make that believes this PKI.
    pub fn server_block(&self) -> String {
        let at = |name: &str| self.directory.path().join(name).display().to_string();
        block(&[("devid_ca_path", &at("root.pem")), ("endorsement_ca_path", &at("makers.pem"))])
    }

    /// A chip fresh from the maker, whose RSA endorsement key is certified: the one that SPIRE knows.
    pub fn chip(&self) -> Swtpm {
        let chip = Swtpm::start().expect("swtpm (package swtpm) starts");
        self.maker.certify_rsa(&chip).expect("endorsement key certified");
        chip
    }

    /// Makes a key in `chip` and certifies it.
    pub fn issue(&self, chip: &Swtpm, name: &str, algorithm: DevIdAlgorithm) -> DevId {
        self.issue_with(chip, name, algorithm, None)
    }

    /// The same, with a password on the key.
    pub fn issue_with(
        &self,
        chip: &Swtpm,
        name: &str,
        algorithm: DevIdAlgorithm,
        password: Option<&'static str>,
    ) -> DevId {
        let bytes = Zeroizing::new(password.unwrap_or_default().as_bytes().to_vec());
        let password_of_key = HierarchyPassword::new(bytes).expect("short");
        let tpm = Tpm::open_blocking(chip.address()).expect("the chip answers");
        let key = tpm.run_blocking("make a DevID key", move |chip| chip.create_devid_key(algorithm, &password_of_key));
        self.certify(&key.expect("the chip makes keys"), name, password)
    }

    /// Certifies a key, and writes it and its certificate down as SPIRE's agent reads them.
    pub fn certify(&self, key: &DevIdKey, name: &str, password: Option<&'static str>) -> DevId {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = certificates::raw(key.key(), &params, &self.issuing).expect("signed");
        let files = self.directory.path().join(name);
        fs::create_dir_all(&files).expect("directory");
        fs::write(files.join("devid.pem"), pem(&certificate) + &self.issuing.pem()).expect("written");
        fs::write(files.join("devid.pub"), key.public()).expect("written");
        fs::write(files.join("devid.priv"), key.private()).expect("written");
        DevId {
            files,
            password,
            agent_id: format!("spiffe://{TRUST_DOMAIN}/spire/agent/tpm_devid/{}", fingerprint(&certificate)),
            selectors: vec![
                format!("tpm_devid:subject:cn:{name}"),
                "tpm_devid:issuer:cn:Toy DevID CA".to_owned(),
                format!("tpm_devid:ca:fingerprint:{}", fingerprint(self.issuing.der())),
                format!("tpm_devid:ca:fingerprint:{}", fingerprint(self.root.der())),
            ],
        }
    }
}

impl Default for DevIdPki {
    fn default() -> Self {
        Self::new()
    }
}

impl DevId {
    /// The `NodeAttestor` block of an agent of either make whose chip is at `tpm`.
    pub fn agent_block(&self, tpm: &str) -> String {
        let at = |name: &str| self.file(name).display().to_string();
        block(&[
            ("tpm_device_path", tpm),
            ("devid_cert_path", &at("devid.pem")),
            ("devid_pub_path", &at("devid.pub")),
            ("devid_priv_path", &at("devid.priv")),
            ("devid_password", self.password.unwrap_or_default()),
        ])
    }

    /// One of its files: `devid.pem`, `devid.pub` or `devid.priv`.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.files.join(name)
    }
}

fn block(keys: &[(&str, &str)]) -> String {
    let lines: String = keys.iter().map(|(key, value)| format!("{key} = \"{value}\"\n")).collect();
    format!("NodeAttestor \"tpm_devid\" {{ plugin_data {{\n{lines}}} }}")
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}

fn fingerprint(der: &[u8]) -> String {
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref())
}
