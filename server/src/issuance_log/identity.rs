//! What tells this server's log from that of another: random, made once, kept beside the log.

use std::io;
use std::path::Path;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use ironroot_shell::durable_file;
use ironroot_text::hex::{hex, parse_hex};

use super::LogError;

/// The file, in the server's data directory: it outlives a log that is set aside.
pub const FILE_NAME: &str = "issuance.id";
const MODE: u32 = 0o600;
/// Random bytes: as many as no two servers have in common.
const BYTES: usize = 32;

/// What the file in `data_dir` says, 64 hexadecimal digits; one is made where there is none, or none that can be read. Blocks.
pub fn log_id(data_dir: &Path) -> Result<String, LogError> {
    let path = data_dir.join(FILE_NAME);
    let kept = match std::fs::read_to_string(&path) {
        Ok(text) => parse_hex(text.trim()).map(|id| hex(&id)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
        Err(error) => return Err(LogError::Io { doing: "read", path, error }),
    };
    match kept {
        Some(id) => Ok(id),
        None => make(&path).map_err(|error| LogError::Io { doing: "write", path, error }),
    }
}

fn make(path: &Path) -> io::Result<String> {
    let mut id = [0; BYTES];
    SystemRandom::new().fill(&mut id).map_err(|_| io::Error::other("no randomness"))?;
    let id = hex(&id);
    durable_file::replace(path, id.as_bytes(), MODE)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_once_and_anew_where_nothing_can_be_read() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().expect("directory"));
        let first = log_id(one.path()).expect("made");
        assert_eq!((first.len(), log_id(one.path()).expect("kept")), (2 * BYTES, first.clone()));
        assert_ne!(log_id(other.path()).expect("made"), first);
        std::fs::write(one.path().join(FILE_NAME), "torn").expect("written");
        assert_ne!(log_id(one.path()).expect("made anew"), first);
    }
}
