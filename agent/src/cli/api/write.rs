//! SVIDs into files.

use std::fmt::Write as _;
use std::path::Path;

use ironroot_api::certificate::Certificate;
use ironroot_shell::command_line::{CommandError, replace_file, shown};

use super::svid::WorkloadSvids;
use crate::pem;

/// Modes of what is written: a key is its owner's, certificates are everybody's. Source: SPIRE.
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// Writes `svid.N.pem`, `svid.N.key`, `bundle.N.pem` and `federated_bundle.N.M.pem` and says so.
pub(super) fn write(svids: &WorkloadSvids, directory: &Path) -> Result<String, CommandError> {
    let mut said = String::new();
    for (n, svid) in svids.svids.iter().enumerate() {
        let mut put = |what: &str, name: String, content: &[u8], mode: u32| {
            let path = directory.join(name);
            writeln!(said, "Writing {what} to file {}.", path.display()).expect("writing to a string cannot fail");
            replace_file(&path, content, mode).map_err(|source| CommandError::File { doing: "write", path, source })
        };
        let key = pem::private_key(&svid.key);
        put(&format!("SVID #{n}"), format!("svid.{n}.pem"), &encode(&svid.chain), CERTIFICATE_MODE)?;
        put(&format!("key #{n}"), format!("svid.{n}.key"), key.as_bytes(), KEY_MODE)?;
        put(&format!("bundle #{n}"), format!("bundle.{n}.pem"), &encode(&svid.bundle), CERTIFICATE_MODE)?;
        for (m, (trust_domain, bundle)) in svids.federated.iter().enumerate() {
            let what = format!("federated bundle #{m} for trust domain {}", shown(trust_domain));
            put(&what, format!("federated_bundle.{n}.{m}.pem"), &encode(bundle), CERTIFICATE_MODE)?;
        }
    }
    Ok(said)
}

fn encode(certificates: &[Certificate]) -> Vec<u8> {
    pem::certificates(certificates.iter().map(Certificate::der)).into_bytes()
}
