//! Another PKI in files: a root, a CA below it, and that CA's key, for `UpstreamAuthority "disk"`.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ironroot_server::ca::DiskAuthority;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SignatureAlgorithm,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

/// The files, gone when this is dropped.
#[derive(Debug)]
pub struct UpstreamFiles {
    directory: TempDir,
}

impl UpstreamFiles {
    /// A root, and a CA with such a key below it.
    pub fn new(algorithm: &'static SignatureAlgorithm) -> Self {
        let directory = tempfile::Builder::new().prefix("upstream-").tempdir().expect("directory");
        let files = Self { directory };
        files.replace(algorithm);
        files
    }

    /// Another root and another CA in their place; the root's DER.
    pub fn replace(&self, algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let (root_key, key) = (KeyPair::generate().expect("a key"), KeyPair::generate_for(algorithm).expect("a key"));
        let params = params("The root", BasicConstraints::Unconstrained);
        let root = params.self_signed(&root_key).expect("signed");
        let ca = self.ca(&key, &Issuer::new(params, root_key));
        self.write("ca.pem", &ca.pem());
        self.write("ca.key", &key.serialize_pem());
        self.write("root.pem", &root.pem());
        root.der().to_vec()
    }

    fn ca(&self, key: &KeyPair, root: &Issuer<'_, KeyPair>) -> Certificate {
        params("A CA below it", BasicConstraints::Unconstrained).signed_by(key, root).expect("signed")
    }

    /// Another CA below this one, beside the server's: its certificate, and what is above it.
    pub fn ca_beside(&self) -> (Vec<Vec<u8>>, Issuer<'static, KeyPair>) {
        let read = |name| std::fs::read_to_string(self.at(name)).expect("written");
        let upstream = params("A CA below it", BasicConstraints::Unconstrained);
        let upstream = Issuer::new(upstream, KeyPair::from_pem(&read("ca.key")).expect("a key"));
        let above = CertificateDer::from_pem_slice(read("ca.pem").as_bytes()).expect("a certificate");
        let (params, key) =
            (params("A CA beside the server's", BasicConstraints::Constrained(0)), KeyPair::generate().expect("a key"));
        let ca = params.clone().signed_by(&key, &upstream).expect("signed");
        (vec![ca.der().to_vec(), above.to_vec()], Issuer::new(params, key))
    }

    /// An SVID that such a CA has signed, with what is above it, and its key.
    pub fn svid_beside(&self, spiffe_id: &str) -> (Vec<Vec<u8>>, PrivateKeyDer<'static>) {
        let (above, ca) = self.ca_beside();
        let key = KeyPair::generate().expect("a key");
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![SanType::URI(spiffe_id.try_into().expect("a URI"))];
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = leaf.signed_by(&key, &ca).expect("signed").der().to_vec();
        ([vec![leaf], above].concat(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    /// What a server is told of them.
    pub fn authority(&self) -> DiskAuthority {
        let [certificate_path, key_path, bundle_path] = ["ca.pem", "ca.key", "root.pem"].map(|name| self.at(name));
        DiskAuthority { certificate_path, key_path, bundle_path: Some(bundle_path) }
    }

    /// The plugin's block.
    pub fn plugin(&self) -> String {
        let [certificate, key, root] = ["ca.pem", "ca.key", "root.pem"].map(|name| self.at(name).display().to_string());
        format!(
            "UpstreamAuthority \"disk\" {{ plugin_data {{ cert_file_path = \"{certificate}\", key_file_path = \"{key}\", \
             bundle_file_path = \"{root}\" }} }}"
        )
    }

    /// The key goes, or is there again.
    pub fn has_key(&self, is_there: bool) {
        let (here, away) = (self.at("ca.key"), self.at("ca.key.away"));
        let (from, to) = if is_there { (away, here) } else { (here, away) };
        std::fs::rename(from, to).expect("renamed");
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path: &Path = &self.at(name);
        std::fs::write(path, text).expect("written");
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).expect("ours");
    }
}

fn params(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}
