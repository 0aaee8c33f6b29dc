//! A server and any number of devices, as the processes and sockets that a fleet has: real binaries, own directories, own
//! ports, ended on drop.
//!
//! ```text
//!  Deployment ── Server (ironroot-server, SoftHSM token)
//!      └────────── Device (swtpm, ironroot-agent, socket) ... any number
//! ```

mod device;
mod process;
mod server;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use device::{AgentOptions, Device, Fetched};
pub use ironroot_postgres_cluster::ports::free_port;
pub use process::{MovedOn, Process, as_uid};
pub use server::{Admission, Keys, Server, ServerOptions};

/// Longest a lab waits for anything on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The trust domain of every deployment.
pub const TRUST_DOMAIN: &str = "lab.example";

/// Between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks again and again until `look` finds something, or until `deadline` has passed. It sleeps, as [`expect_within_async`] does,
/// and nothing else.
pub fn wait_for<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until `holds`, or panics with `claim` and what `explain` says.
pub fn expect_within(
    deadline: Duration,
    claim: &str,
    explain: impl FnOnce() -> String,
    mut holds: impl FnMut() -> bool,
) {
    if wait_for(deadline, || holds().then_some(())).is_none() {
        panic!("not within {deadline:?}: {claim}\n{}", explain());
    }
}

/// The same, while the runtime goes on with what else there is to do.
pub async fn expect_within_async(
    deadline: Duration,
    claim: &str,
    explain: impl FnOnce() -> String,
    mut holds: impl AsyncFnMut() -> bool,
) {
    let end = Instant::now() + deadline;
    while !holds().await {
        assert!(Instant::now() < end, "not within {deadline:?}: {claim}\n{}", explain());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Names a directory with another build of this tree's binaries; those that are not there are looked for as ever.
pub const BINARIES_VARIABLE: &str = "IRONROOT_BIN";

/// A binary of this tree, beside the running test or program.
///
/// # Panics
/// If it has not been built: `cargo build --workspace --bins`.
pub fn binary(name: &str) -> PathBuf {
    let chosen = std::env::var_os(BINARIES_VARIABLE).map(|directory| Path::new(&directory).join(name));
    if let Some(chosen) = chosen.filter(|path| path.is_file()) {
        return chosen;
    }
    let here = std::env::current_exe().expect("the running program has a path");
    let candidates = here.ancestors().skip(1).take(3).map(|directory| directory.join(name));
    let found = candidates.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not beside {}: run cargo build --workspace --bins first", here.display()))
}

/// A directory that processes of other users may enter.
pub(crate) fn open_directory(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path).expect("directory made");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("mode set");
}
