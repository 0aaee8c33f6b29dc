//! SPIRE's own binaries, unchanged, as the other half of a deployment.
//!
//! They are not part of this tree: whoever runs the tests that need them names a directory with `spire-server` and `spire-agent`
//! in the environment. `scripts/nightly` builds them from a source tree.

mod agent;
mod server;

use std::path::PathBuf;
use std::process::Command;

pub use agent::SpireAgent;
pub use server::{SpireServer, Times};

/// Names the directory that holds SPIRE's binaries.
pub const BINARIES_VARIABLE: &str = "IRONROOT_SPIRE_BIN";

/// One of SPIRE's binaries.
///
/// # Panics
/// If the environment does not name them: who runs these tests asks for them.
pub fn spire_binary(name: &str) -> PathBuf {
    let directory = std::env::var_os(BINARIES_VARIABLE).unwrap_or_else(|| {
        panic!("set {BINARIES_VARIABLE} to a directory with spire-server and spire-agent (scripts/nightly builds them)")
    });
    let path = PathBuf::from(directory).join(name);
    assert!(path.is_file(), "{BINARIES_VARIABLE}: there is no {}", path.display());
    path
}

/// Whether the environment names SPIRE's binaries.
pub fn is_given() -> bool {
    std::env::var_os(BINARIES_VARIABLE).is_some()
}

/// A command of SPIRE's, with the environment that the test runs in.
pub fn spire_command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(spire_binary(name));
    command.args(arguments);
    command
}
