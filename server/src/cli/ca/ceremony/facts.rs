//! What a transcript says of the machine, the program, the token, a key and a certificate.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256, digest};
use ironroot_api::certificate::Certificate;
use ironroot_api::utc;
use ironroot_hsm::{ModuleSurvey, TokenKey, TokenSurvey};
use ironroot_text::hex::hex;

use super::transcript::line;

/// A piece of a file that is hashed at once, bytes.
const PIECE_BYTES: usize = 64 * 1024;

type Lines = Vec<(String, String)>;

/// Where, when and by what it was done.
pub(super) fn of_the_ceremony(began_unix: i64, ended_unix: i64) -> Lines {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let command: Vec<String> = std::env::args().collect();
    vec![
        line("Began", utc(began_unix)),
        line("Ended", utc(ended_unix)),
        line("Machine", format!("{}, Linux {}", host.trim(), kernel.trim())),
        line("User", nix::unistd::geteuid().to_string()),
        line("Command", command.join(" ")),
        line("Program", format!("ironroot-server {}", env!("CARGO_PKG_VERSION"))),
        line("Program SHA-256", hash_of_file(Path::new("/proc/self/exe"))),
    ]
}

/// The library and the token.
pub(super) fn of_the_token(module_path: &Path, survey: &ModuleSurvey, (slot, token): (u64, &TokenSurvey)) -> Lines {
    let library = format!("{} {}, by {}", survey.description, survey.version, survey.manufacturer);
    vec![
        line("Module", module_path.display().to_string()),
        line("Module SHA-256", hash_of_file(module_path)),
        line("Library", format!("{library}, PKCS#11 {}", survey.cryptoki)),
        line("Slot", slot.to_string()),
        line("Label", token.label.clone()),
        line("Serial", token.serial.clone()),
        line("Model", format!("{} by {}", token.model, token.manufacturer)),
        line("Firmware", token.firmware.clone()),
    ]
}

/// A key, and what the token says of it.
pub(super) fn of_the_key(key: &TokenKey) -> Lines {
    let name = key.name();
    let mut lines = vec![
        line("Label", name.label().unwrap_or_default()),
        line("CKA_ID", name.id().map(ToString::to_string).unwrap_or_default()),
        line("Kind", key.kind().to_string()),
        line("Public key SHA-256", sha256(key.spki_der())),
    ];
    lines.extend(key.attributes().into_iter().map(|(name, value)| line(name, value.to_string())));
    lines
}

/// A certificate.
pub(super) fn of_a_certificate(certificate: &Certificate) -> Lines {
    let signed = certificate.inner().tbs_certificate();
    vec![
        line("Subject", signed.subject().to_string()),
        line("Issuer", signed.issuer().to_string()),
        line("Serial", certificate.serial_decimal()),
        line("SPIFFE ID", certificate.spiffe_id().map(|id| id.to_string()).unwrap_or_default()),
        line("Valid from", utc(certificate.not_before_unix())),
        line("Valid until", utc(certificate.not_after_unix())),
        line("Subject key ID", certificate.subject_key_id().map(|id| hex(&id)).unwrap_or_default()),
        line("Public key SHA-256", sha256(&certificate.spki_der())),
        line("SHA-256", sha256(certificate.der())),
    ]
}

/// SHA-256, hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// The same of a file; of one that cannot be read, why.
pub(super) fn hash_of_file(path: &Path) -> String {
    hash(path).unwrap_or_else(|error| format!("cannot be read: {error}"))
}

fn hash(path: &Path) -> io::Result<String> {
    let (mut file, mut context) = (File::open(path)?, Context::new(&SHA256));
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(context.finish().as_ref())),
            read => context.update(&piece[..read]),
        }
    }
}
