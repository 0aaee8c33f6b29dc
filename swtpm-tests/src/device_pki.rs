//! A toy PKI that gives devices certificates before anybody has heard of SPIFFE, for attestation type "x509pop".

mod hardware;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ironroot_attest::node::x509pop::{ATTESTATION_TYPE, Holder, NONCE_BYTES};
use ironroot_text::hex::hex;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, SignatureAlgorithm,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tonic::Status;

use crate::deployment::{TRUST_DOMAIN, open_directory};
use crate::server_client::{self, Credentials, ServerClient, converse, csr, params};

pub use hardware::{HardwareIdentity, key_in_token, key_in_tpm};

/// A root and an authority below it that issues devices their certificates.
pub struct DevicePki {
    directory: TempDir,
    root: Certificate,
    between: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// What a device was given.
pub struct DeviceIdentity {
    files: PathBuf,
    key: KeyPair,
    params: CertificateParams,
    chain: Vec<Vec<u8>>,
    /// The SPIFFE ID of the agent that attests with it.
    pub agent_id: String,
    /// What entries can ask for: name, serial number, both authorities.
    pub selectors: Vec<String>,
}

impl DevicePki {
    /// Makes both.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("device-pki-").tempdir().expect("directory");
        open_directory(directory.path());
        let [root_key, key] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key"));
        let (root_params, params) = (authority("Toy Root"), authority("Toy Device CA"));
        let root = root_params.self_signed(&root_key).expect("signed");
        let between = params.signed_by(&key, &Issuer::new(root_params, root_key)).expect("signed");
        fs::write(directory.path().join("root.pem"), root.pem()).expect("written");
        Self { directory, root, between, issuer: Issuer::new(params, key) }
    }

    /// The `NodeAttestor` block of a server of either make that believes this PKI.
    pub fn server_block(&self) -> String {
        self.server_block_with("")
    }

    /// The same, with further lines.
    pub fn server_block_with(&self, lines: &str) -> String {
        block(&[("ca_bundle_path", &self.directory.path().join("root.pem"))], lines)
    }

    /// Gives a device a certificate for a fresh key.
    pub fn issue(&self, name: &str, algorithm: &'static SignatureAlgorithm) -> DeviceIdentity {
        self.issue_with(name, algorithm, &[])
    }

    /// The same, with names beside its subject.
    pub fn issue_with(
        &self,
        name: &str,
        algorithm: &'static SignatureAlgorithm,
        alternative_names: &[SanType],
    ) -> DeviceIdentity {
        let key = KeyPair::generate_for(algorithm).expect("key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(SerialNumber::from_slice(&[0x0a, 0x1b, 0x2c]));
        params.subject_alt_names = alternative_names.to_vec();
        self.identity(name, key, params)
    }

    /// The same certificate, signed once more: no two ECDSA signatures are alike, so SPIRE's ID of it is another.
    pub fn sign_again(&self, identity: &DeviceIdentity) -> DeviceIdentity {
        let key = KeyPair::from_pem(&identity.key.serialize_pem()).expect("its own key");
        self.identity("again", key, identity.params.clone())
    }

    fn identity(&self, name: &str, key: KeyPair, params: CertificateParams) -> DeviceIdentity {
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let files = self.directory.path().join(name);
        fs::create_dir_all(&files).expect("directory");
        fs::write(files.join("device.pem"), certificate.pem()).expect("written");
        fs::write(files.join("between.pem"), self.between.pem()).expect("written");
        fs::write(files.join("device.key"), key.serialize_pem()).expect("written");
        fs::set_permissions(files.join("device.key"), Permissions::from_mode(0o600)).expect("ours");
        DeviceIdentity {
            files,
            key,
            params,
            chain: vec![certificate.der().to_vec(), self.between.der().to_vec()],
            agent_id: format!("spiffe://{TRUST_DOMAIN}/spire/agent/x509pop/{}", fingerprint(&certificate)),
            selectors: vec![
                format!("x509pop:subject:cn:{name}"),
                "x509pop:serialnumber:0a1b2c".to_owned(),
                format!("x509pop:ca:fingerprint:{}", fingerprint(&self.between)),
                format!("x509pop:ca:fingerprint:{}", fingerprint(&self.root)),
            ],
        }
    }
}

impl Default for DevicePki {
    fn default() -> Self {
        Self::new()
    }
}

impl DeviceIdentity {
    /// Attests as an agent on this device does, over a connection of its own.
    pub async fn attest(&self, server: &ServerClient) -> Result<Credentials, Status> {
        attest(server, self.chain.clone(), &PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()).await
    }

    /// The `NodeAttestor` block of an agent of either make on this device.
    pub fn agent_block(&self) -> String {
        block(
            &[
                ("private_key_path", &self.files.join("device.key")),
                ("certificate_path", &self.files.join("device.pem")),
                ("intermediates_path", &self.files.join("between.pem")),
            ],
            "",
        )
    }
}

/// Attests with `certificates`, the device's own first, and its `key`.
pub async fn attest(
    server: &ServerClient,
    certificates: Vec<Vec<u8>>,
    key: &PrivateKeyDer<'_>,
) -> Result<Credentials, Status> {
    let (svid_key, holder) = (server_client::key(), Holder::new(certificates, key).expect("its own key"));
    let first = params(ATTESTATION_TYPE, holder.evidence(), csr(&svid_key, &[]));
    let answer = |challenge: &[u8]| holder.respond(challenge, [7; NONCE_BYTES]).expect("a challenge");
    converse(server, first, &svid_key, answer).await
}

fn block(keys: &[(&str, &Path)], more: &str) -> String {
    let lines: String = keys.iter().map(|(key, path)| format!("{key} = \"{}\"\n", path.display())).collect();
    format!("NodeAttestor \"x509pop\" {{ plugin_data {{\n{lines}{more}\n}} }}")
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn fingerprint(certificate: &Certificate) -> String {
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate.der()).as_ref())
}
