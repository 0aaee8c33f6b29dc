//! `NodeAttestor "tpm_devid"`.

use std::path::{Path, PathBuf};

use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::Section;
use tracing::warn;

use super::super::read_manufacturer_roots;
use super::x509pop::read_bundle;
use super::{AttestorFileError, told_of_ended};
use crate::node_attestation::{Attestor, TpmDevIdPolicy};

/// Whose DevID certificates count, and in whose chips: a PEM file each, as in SPIRE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmDevIdConfig {
    /// The authorities that issue DevID certificates.
    pub devid_ca_path: PathBuf,
    /// The TPM makers' CAs, with those between a root and the chips: SPIRE's agents send none.
    pub endorsement_ca_path: PathBuf,
}

impl TpmDevIdConfig {
    pub(super) fn load(&self, now_unix: i64) -> Result<Attestor, AttestorFileError> {
        let told = |path: &Path, ended: &[String]| told_of_ended(path, ended).inspect(|told| warn!("{told}"));
        let authorities = read_bundle(&self.devid_ca_path)?;
        told(&self.devid_ca_path, &authorities.ended(now_unix));
        let makers = read_manufacturer_roots(&self.endorsement_ca_path)?;
        told(&self.endorsement_ca_path, &makers.ended(now_unix));
        Ok(Attestor::TpmDevId(Box::new(TpmDevIdPolicy { authorities, makers })))
    }
}

/// What `NodeAttestor "tpm_devid"` is told.
pub(super) fn read(data: &Section<'_>) -> Option<TpmDevIdConfig> {
    let devid =
        file(data, "devid_ca_path", "give the PEM file of the authorities that issue DevID certificates", |path| {
            read_bundle(path).map(|bundle| bundle.ended(wall_unix())).map_err(|error| describe(&error))
        });
    let hint = "give the PEM file of the TPM makers' CAs, those that sign for chips included";
    let makers = file(data, "endorsement_ca_path", hint, |path| {
        read_manufacturer_roots(path).map(|roots| roots.ended(wall_unix())).map_err(|error| describe(&error))
    });
    data.finish();
    Some(TpmDevIdConfig { devid_ca_path: devid?, endorsement_ca_path: makers? })
}

/// A file that must be named, and can be read; authorities in it that have ended are told.
fn file(
    data: &Section<'_>,
    key: &'static str,
    hint: &str,
    ended: impl Fn(&Path) -> Result<Vec<String>, String>,
) -> Option<PathBuf> {
    let path = data.required(key, data.path(key), hint)?;
    data.look(key, || {
        told_of_ended(&path, &ended(&path)?).inspect(|told| data.warn(key, told.as_str()));
        Ok(())
    });
    Some(path)
}
