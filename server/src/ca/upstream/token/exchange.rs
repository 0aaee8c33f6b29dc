//! The directory in which a request waits for the root, and in which the certificate for it is put: both may be carried by hand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use der::pem::{self, LineEnding};
use ironroot_api::certificate::Certificate;
use ironroot_api::csr::{Csr, CsrError, Spki};
use ironroot_api::directory::{DirectoryError, OURS, prepare};
use ironroot_shell::command_line::replace_file;
use ironroot_text::{FileError, HumanFile};
use thiserror::Error;

use super::super::CaRequest;
use super::super::disk::{CertificateFileError, certificates};
use crate::ca::ceremony::Delivery;

/// Largest request in PEM that is read, bytes: more than [`ironroot_api::csr::MAX_CSR_BYTES`] in base64.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// What is carried to the ceremony.
const REQUEST: &str = "ca-request.pem";
/// What is carried back.
const CERTIFICATE: &str = "ca-certificate.pem";
/// Modes of both: no secrets.
const MODE: u32 = 0o644;

/// The directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange(PathBuf);

/// A request that waits.
#[derive(Clone, Debug)]
pub struct WaitingRequest {
    path: PathBuf,
    der: Vec<u8>,
    spki: Spki,
}

/// Why files do not go to and fro.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// The directory, or a file in it.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others could replace what is in the directory.
    #[error("the directory for the ceremony cannot be used")]
    Directory(#[from] DirectoryError),
    /// It cannot be read, or is no text.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no request.
    #[error("{0} holds no request for a certificate: {1}")]
    NoRequest(String, String),
    /// It is no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateFileError),
}

impl Exchange {
    /// In this directory; it is made when something is put there.
    pub fn at(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// What is carried to the ceremony.
    pub fn request_path(&self) -> PathBuf {
        self.0.join(REQUEST)
    }

    /// Where what is carried back belongs.
    pub fn certificate_path(&self) -> PathBuf {
        self.0.join(CERTIFICATE)
    }

    /// Whether a request waits, be it one that nobody can read.
    pub fn has_waiting(&self) -> bool {
        self.request_path().exists()
    }

    /// The request that waits, if one does.
    pub fn waiting(&self) -> Result<Option<WaitingRequest>, ExchangeError> {
        match self.has_waiting() {
            true => WaitingRequest::read(&self.request_path()).map(Some),
            false => Ok(None),
        }
    }

    /// Puts a certificate, and what is between it and its root, where the server finds it.
    pub(in crate::ca) fn deliver(&self, delivery: &Delivery) -> Result<PathBuf, ExchangeError> {
        self.put_chain(delivery.chain())
    }

    fn put_chain(&self, chain: &[Certificate]) -> Result<PathBuf, ExchangeError> {
        let text: String = chain.iter().map(|one| pem_text("CERTIFICATE", one.der())).collect();
        self.put(&self.certificate_path(), &text)
    }

    /// The chain that was delivered for this key, if it was.
    pub(super) fn delivered(&self, spki: &Spki) -> Result<Option<Vec<Certificate>>, ExchangeError> {
        let path = self.certificate_path();
        if !path.exists() {
            return Ok(None);
        }
        let chain = certificates(&path)?;
        Ok(chain.first().is_some_and(|ca| ca.spki_der() == spki.as_der()).then_some(chain))
    }

    /// Has the request wait, unless it does already.
    pub(super) fn ask(&self, request: &CaRequest) -> Result<PathBuf, ExchangeError> {
        let path = self.request_path();
        if self.waiting().is_ok_and(|waiting| waiting.is_some_and(|waiting| waiting.spki == request.spki)) {
            return Ok(path);
        }
        self.put(&path, &pem_text("CERTIFICATE REQUEST", &request.csr))
    }

    /// Takes both out: what was asked for was delivered.
    pub(super) fn clear(&self) -> Result<(), ExchangeError> {
        for path in [self.request_path(), self.certificate_path()] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(ExchangeError::Io { doing: "remove", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn put(&self, path: &Path, text: &str) -> Result<PathBuf, ExchangeError> {
        // One that is there may be the server's own, and this the ceremony's command, run by root.
        if !self.0.is_dir() {
            prepare(&self.0, OURS)?;
        }
        let failed = |source| ExchangeError::Io { doing: "write", path: path.to_owned(), source };
        replace_file(path, text.as_bytes(), MODE).map_err(failed)?;
        Ok(path.to_owned())
    }
}

impl WaitingRequest {
    /// Reads a request in PEM whose own key has signed it.
    pub fn read(path: &Path) -> Result<Self, ExchangeError> {
        let file = HumanFile::regular(path, MAX_REQUEST_BYTES)?;
        let name = file.name().to_owned();
        Self::parse(file.text(), path).map_err(|why| ExchangeError::NoRequest(name, why))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// PKCS #10, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The key that it is for, DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        self.spki.as_der()
    }

    fn parse(text: &str, path: &Path) -> Result<Self, String> {
        let (label, der) = pem::decode_vec(text.trim().as_bytes()).map_err(|error| error.to_string())?;
        if label != "CERTIFICATE REQUEST" && label != "NEW CERTIFICATE REQUEST" {
            return Err(format!("it begins with {label:?}"));
        }
        let csr = Csr::parse(&der).map_err(|error: CsrError| error.to_string())?;
        Ok(Self { path: path.to_owned(), spki: csr.spki().clone(), der })
    }
}

/// PEM of one thing.
pub(in crate::ca) fn pem_text(label: &'static str, der: &[u8]) -> String {
    pem::encode_string(label, LineEnding::LF, der).expect("some kilobytes are PEM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_damage() {
        let key = rcgen::KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let whole = pem_text("CERTIFICATE REQUEST", request.der());
        assert!(WaitingRequest::parse(&whole, Path::new("x")).is_ok());
        assert!(WaitingRequest::parse(&whole.replace("REQUEST", "OTHER"), Path::new("x")).is_err());
        ironroot_fuzz::Target::new("request for a CA").seed(whole.as_str()).survives(|bytes| {
            let _ = WaitingRequest::parse(&String::from_utf8_lossy(bytes), Path::new("x"));
        });
    }

    #[test]
    fn what_is_delivered_is_found_by_its_key_and_by_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let exchange = Exchange::at(directory.path().join("ceremony"));
        assert!(exchange.waiting().unwrap().is_none());
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let certificate = Certificate::parse(certificate.der()).unwrap();
        let spki = Spki::parse(&certificate.spki_der()).unwrap();
        assert!(exchange.delivered(&spki).unwrap().is_none());
        exchange.put_chain(std::slice::from_ref(&certificate)).unwrap();
        assert_eq!(exchange.delivered(&spki).unwrap().unwrap()[0].der(), certificate.der());
        let other = Spki::parse(&rcgen::PublicKeyData::subject_public_key_info(&rcgen::KeyPair::generate().unwrap()));
        assert!(exchange.delivered(&other.unwrap()).unwrap().is_none());
        exchange.clear().unwrap();
        exchange.clear().unwrap();
        assert!(exchange.delivered(&spki).unwrap().is_none());
    }
}
