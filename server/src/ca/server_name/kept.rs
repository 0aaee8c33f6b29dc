//! The name, kept beside what belongs to it: on a data store that servers share, nothing else tells another name from another server.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use ironroot_shell::durable_file;
use thiserror::Error;

use super::ServerName;

/// The file, in the server's data directory.
const FILE_NAME: &str = "server-name";
const MODE: u32 = 0o600;

/// Why a server does not begin under a name.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum KeptNameError {
    #[error(
        "data_dir belongs to server_name {found:?}, as {path} says, and this server is {server:?}: its CA goes on only under the name that it \
         has, so set server_name to that; to found another CA on purpose, give the server a data_dir of its own, or remove that file, and \
         give every agent the new trust bundle"
    )]
    Another { path: PathBuf, found: String, server: String },
    #[error("cannot {doing} {path}, where this server's name is kept")]
    Io {
        /// Which step, as a verb.
        doing: &'static str,
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

/// Refuses `server` where another name is kept in `data_dir`. Blocks.
pub fn check_kept_name(data_dir: &Path, server: &ServerName) -> Result<(), KeptNameError> {
    let path = data_dir.join(FILE_NAME);
    let found = match fs::read_to_string(&path) {
        Ok(found) => found.trim().to_owned(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(KeptNameError::Io { doing: "read", path, error }),
    };
    match found == server.as_str() {
        true => Ok(()),
        false => Err(KeptNameError::Another { path, found, server: server.as_str().to_owned() }),
    }
}

/// Keeps it, once the server's CA is there. Blocks.
pub fn keep_name(data_dir: &Path, server: &ServerName) -> Result<(), KeptNameError> {
    let path = data_dir.join(FILE_NAME);
    if path.exists() {
        return check_kept_name(data_dir, server);
    }
    let written = durable_file::replace(&path, format!("{}\n", server.as_str()).as_bytes(), MODE);
    written.map_err(|error| KeptNameError::Io { doing: "write", path, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_kept_is_the_only_one_until_its_file_is_removed() {
        let directory = tempfile::tempdir().expect("directory");
        let [north, south] = ["north", "south"].map(|name| name.parse::<ServerName>().expect("legal"));
        let check = |name: &ServerName| check_kept_name(directory.path(), name);
        check(&south).expect("none is kept yet");
        keep_name(directory.path(), &north).expect("kept");
        keep_name(directory.path(), &north).and_then(|()| check(&north)).expect("its own");
        let refused = check(&south).expect_err("another").to_string();
        assert!(
            refused.contains("belongs to server_name \"north\"") && refused.contains("remove that file"),
            "{refused}"
        );
        assert!(keep_name(directory.path(), &south).is_err());
        fs::remove_file(directory.path().join(FILE_NAME)).expect("removed");
        check(&south).expect("on purpose");
    }
}
