//! `NodeAttestor "x509pop"`.

use std::path::{Path, PathBuf};

use ironroot_attest::node::x509pop::{Authorities, AuthoritiesError};
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::Section;
use ironroot_text::{FileError, HumanFile};
use thiserror::Error;
use tracing::warn;

use super::super::PROGRAM;
use super::told_of_ended;
use crate::node_attestation::{Attestor, X509PopPolicy};

/// Largest bundle accepted, bytes: some thousand certificates.
const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// Whose certificates devices attest with: PEM files, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509PopConfig {
    /// The bundles of their authorities.
    pub ca_bundle_paths: Vec<PathBuf>,
}

/// Why such a bundle cannot be used. Each message names the file.
#[derive(Debug, Error)]
pub enum CaBundleError {
    /// It cannot be read, or is no text.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is something else in it than certificates of authorities.
    #[error("{0} holds no usable authorities")]
    Authorities(String, #[source] AuthoritiesError),
}

impl X509PopConfig {
    pub(super) fn load(&self, now_unix: i64) -> Result<Attestor, CaBundleError> {
        let mut authorities = Authorities::default();
        for path in &self.ca_bundle_paths {
            let bundle = read_bundle(path)?;
            told_of_ended(path, &bundle.ended(now_unix)).inspect(|told| warn!("{told}"));
            authorities = authorities.and(bundle);
        }
        Ok(Attestor::X509Pop(Box::new(X509PopPolicy { authorities })))
    }
}

fn read_bundle(path: &Path) -> Result<Authorities, CaBundleError> {
    let file = HumanFile::regular(path, MAX_FILE_BYTES)?;
    Authorities::from_pem(file.text()).map_err(|error| CaBundleError::Authorities(file.name().to_owned(), error))
}

/// What `NodeAttestor "x509pop"` is told.
pub(super) fn read(data: &Section<'_>) -> Option<X509PopConfig> {
    data.not_supported(
        PROGRAM,
        &[
            "agent_path_template",
            "max_intermediates",
            "max_rsa_key_size",
            "spiffe_prefix",
            "svid_prefix",
            "verify_client_ip",
        ],
    );
    data.parsed("mode", |mode| match mode {
        "external_pki" => Ok(()),
        _ => Err("use external_pki, which needs ca_bundle_path: other modes are not supported yet"),
    });
    let (one, several) = (data.path("ca_bundle_path"), data.strings("ca_bundle_paths").unwrap_or_default());
    if one.is_some() && !several.is_empty() {
        data.mistake("ca_bundle_paths", "give either ca_bundle_path or ca_bundle_paths, not both");
    }
    let key = if data.has("ca_bundle_paths") { "ca_bundle_paths" } else { "ca_bundle_path" };
    let paths: Vec<PathBuf> = one.into_iter().chain(several.into_iter().map(PathBuf::from)).collect();
    for path in &paths {
        data.look(key, || {
            let bundle = read_bundle(path).map_err(|error| describe(&error))?;
            told_of_ended(path, &bundle.ended(wall_unix())).inspect(|told| data.warn(key, told.as_str()));
            Ok(())
        });
    }
    data.finish();
    let hint = "give the PEM file of the authorities that issue the devices' certificates";
    let ca_bundle_paths = data.required(key, Some(paths).filter(|paths| !paths.is_empty()), hint)?;
    Some(X509PopConfig { ca_bundle_paths })
}
