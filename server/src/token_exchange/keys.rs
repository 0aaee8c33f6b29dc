//! An issuer's keys: had from a file or from where its discovery document says, within the bounds of any fetch.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ironroot_api::jwt::{IssuerKeys, JwksError, MAX_JWKS_BYTES};
use ironroot_api::tls::KeyExchanges;
use ironroot_text::pem::{PemError, certificates};
use ironroot_text::{FileError, HumanFile};
use rustls::RootCertStore;
use thiserror::Error;

use super::discovery::{DiscoveryError, keys_url};
use super::policy::{IssuerPolicy, KeySource};
use crate::web_fetch::{DEADLINE, EndpointProof, FetchError, fetch};

/// Longest file of authorities read, bytes: those of the whole web are a quarter of it.
const MAX_CA_FILE_BYTES: usize = 1024 * 1024;

/// Why an issuer's keys could not be had. Those that are held stay, for as long as they may.
#[derive(Debug, Error)]
pub(super) enum KeysError {
    #[error("cannot read {0}")]
    File(PathBuf, #[source] FileError),
    #[error("cannot use ca_file {0}")]
    CaFile(PathBuf, #[source] PemError),
    #[error("cannot fetch {0}")]
    Fetch(String, #[source] FetchError),
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    #[error("{0} is not taken")]
    Keys(String, #[source] JwksError),
    /// Both documents together.
    #[error("no keys within {} seconds", .0.as_secs())]
    Late(Duration),
    #[error("the fetch was broken off")]
    BrokenOff,
}

/// Reads or fetches the keys of that issuer.
pub(super) async fn obtain(policy: &IssuerPolicy, exchanges: KeyExchanges) -> Result<IssuerKeys, KeysError> {
    match &policy.keys {
        KeySource::File(path) => {
            let path = path.clone();
            blocking(move || from_file(&path)).await
        }
        KeySource::Discovery { url, ca_file } => {
            let (file, named) = (ca_file.clone(), url.to_string());
            let proof = blocking(move || proof(file.as_deref(), exchanges, &named)).await?;
            let fetched = async {
                let document =
                    fetch(url, &proof, DEADLINE).await.map_err(|why| KeysError::Fetch(url.to_string(), why))?;
                let keys = keys_url(&policy.url, &document)?;
                let set =
                    fetch(&keys, &proof, DEADLINE).await.map_err(|why| KeysError::Fetch(keys.to_string(), why))?;
                IssuerKeys::from_jwks(&set).map_err(|why| KeysError::Keys(keys.to_string(), why))
            };
            tokio::time::timeout(DEADLINE, fetched).await.map_err(|_| KeysError::Late(DEADLINE))?
        }
    }
}

fn from_file(path: &Path) -> Result<IssuerKeys, KeysError> {
    let file = HumanFile::regular(path, MAX_JWKS_BYTES).map_err(|why| KeysError::File(path.to_owned(), why))?;
    IssuerKeys::from_jwks(file.text().as_bytes()).map_err(|why| KeysError::Keys(path.display().to_string(), why))
}

fn proof(ca_file: Option<&Path>, exchanges: KeyExchanges, url: &str) -> Result<EndpointProof, KeysError> {
    let failed = |why| KeysError::Fetch(url.to_owned(), why);
    let Some(path) = ca_file else {
        return EndpointProof::web(exchanges).map(EndpointProof::of_issuer).map_err(failed);
    };
    let file = HumanFile::regular(path, MAX_CA_FILE_BYTES).map_err(|why| KeysError::File(path.to_owned(), why))?;
    let mut roots = RootCertStore::empty();
    let read = certificates(file.text()).map_err(|why| KeysError::CaFile(path.to_owned(), why))?;
    roots.add_parsable_certificates(read);
    EndpointProof::web_with(roots, exchanges).map(EndpointProof::of_issuer).map_err(failed)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeysError> + Send + 'static,
) -> Result<T, KeysError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| KeysError::BrokenOff)?
}
