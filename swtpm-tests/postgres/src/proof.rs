//! What the server proves its name with.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::programs::unprivileged;

/// Writes `ca.pem`, `server.crt` and `server.key` into the directory.
pub(crate) fn write(directory: &Path) {
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, directory.display().to_string());
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("key")).expect("signs itself");
    let key = KeyPair::generate().expect("key");
    let server = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let server = server.signed_by(&key, &ca).expect("signed");
    for (name, text) in [("ca.pem", ca.pem()), ("server.crt", server.pem()), ("server.key", key.serialize_pem())] {
        let path = directory.join(name);
        fs::write(&path, text).expect("written");
        let mode = if name == "ca.pem" { 0o644 } else { 0o600 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("permissions");
        if let Some((uid, gid)) = unprivileged() {
            chown(&path, Some(uid), Some(gid)).expect("owner");
        }
    }
}
