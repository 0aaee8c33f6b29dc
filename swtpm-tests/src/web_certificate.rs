//! A certificate of the web's for `localhost`, and the authority that it is of: what an endpoint shows to who knows no SPIFFE.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ironroot_api::tls::provider;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use crate::deployment::open_directory;

/// Files in a directory of their own.
#[derive(Debug)]
pub struct WebCertificate {
    directory: TempDir,
}

impl WebCertificate {
    /// Made for this test.
    pub fn new() -> Self {
        Self::made_for(ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// For whoever connects.
    pub fn for_client() -> Self {
        Self::made_for(ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn made_for(purpose: ExtendedKeyUsagePurpose) -> Self {
        let directory = tempfile::Builder::new().prefix("web-certificate-").tempdir().expect("directory");
        open_directory(directory.path());
        let (ca_key, key) = (KeyPair::generate().expect("key"), KeyPair::generate().expect("key"));
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Another name than the leaf's: OpenSSL takes one that is its own issuer for self-signed.
        ca.distinguished_name.push(DnType::CommonName, "An authority of the web");
        let authority = ca.self_signed(&ca_key).expect("root").pem();
        let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("legal");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![purpose];
        let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).expect("signed").pem();
        for (name, text, mode) in
            [("ca.pem", authority, 0o644), ("cert.pem", leaf, 0o644), ("key.pem", key.serialize_pem(), 0o600)]
        {
            let path = directory.path().join(name);
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("mode set");
        }
        Self { directory }
    }

    /// The authority, for `SSL_CERT_FILE`.
    pub fn authority(&self) -> PathBuf {
        self.at("ca.pem")
    }

    /// The files with the certificate, and with its key.
    pub fn certificate_and_key(&self) -> [PathBuf; 2] {
        [self.at("cert.pem"), self.at("key.pem")]
    }

    /// The block of a configuration that names the certificate and its key.
    pub fn block(&self) -> String {
        let [certificate, key] = self.certificate_and_key();
        format!(
            "serving_cert_file {{ cert_file_path = \"{}\" key_file_path = \"{}\" file_sync_interval = \"1s\" }}",
            certificate.display(),
            key.display()
        )
    }

    /// Lines of a server's block by which it serves OIDC discovery at that port of `localhost`, as the issuer that is named beside them.
    pub fn oidc_discovery(&self, port: u16) -> (String, String) {
        let issuer = format!("https://localhost:{port}");
        let lines = format!(
            "jwt_issuer = \"{issuer}\"
            oidc_discovery {{ domains = [\"localhost\"] address = \"127.0.0.1\" port = {port} {} }}",
            self.block()
        );
        (issuer, lines)
    }

    /// TLS of a web server that shows it, to whoever asks.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let chain = vec![CertificateDer::from_pem_file(self.certificate()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_file(self.key()).expect("PEM");
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.3 suites")
            .with_no_client_auth()
            .with_single_cert(chain, key);
        Arc::new(config.expect("a pair"))
    }

    /// The certificate's file.
    pub fn certificate(&self) -> PathBuf {
        self.at("cert.pem")
    }

    /// The file of its private key.
    pub fn key(&self) -> PathBuf {
        self.at("key.pem")
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Default for WebCertificate {
    fn default() -> Self {
        Self::new()
    }
}
