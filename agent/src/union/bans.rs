//! Which servers ban this agent: the word of one holds for what came from all, over restarts too.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use ironroot_shell::describe;
use tokio::sync::watch;
use tracing::error;

use crate::durable_file;
use crate::server_number::ServerNumber;

/// Name of the file in a server's directory while it bans the agent.
pub const FILE_NAME: &str = "banned";
/// Nothing is read from it but that it is there.
const MAX_FILE_BYTES: usize = 64;

/// See the module. Clones share it. The default: of an agent with one server, which says so itself at each contact.
#[derive(Clone, Debug)]
pub struct Bans {
    by: watch::Sender<BTreeSet<ServerNumber>>,
    /// The servers' directories, in their order.
    directories: Arc<[PathBuf]>,
}

impl Default for Bans {
    fn default() -> Self {
        Self::open(Vec::new())
    }
}

impl Bans {
    /// As an earlier run left them in these directories of the servers.
    pub fn open(directories: Vec<PathBuf>) -> Self {
        // A file that is there and cannot be read is a ban.
        let stands =
            |directory: &PathBuf| !matches!(durable_file::read(&directory.join(FILE_NAME), MAX_FILE_BYTES), Ok(None));
        let servers = ServerNumber::up_to(directories.len());
        let by =
            servers.zip(&directories).filter(|(_, directory)| stands(directory)).map(|(server, _)| server).collect();
        Self { by: watch::Sender::new(by), directories: directories.into() }
    }

    /// Whether this server does.
    pub fn are_by(&self, server: ServerNumber) -> bool {
        self.by.borrow().contains(&server)
    }

    /// Whether another server than this one does.
    pub fn are_by_another(&self, server: ServerNumber) -> bool {
        self.by.borrow().iter().any(|by| *by != server)
    }

    /// Whether anybody does.
    pub fn are_there(&self) -> bool {
        !self.by.borrow().is_empty()
    }

    /// What this server says now. It is on the disk afterwards, as far as the disk takes it.
    pub fn say(&self, server: ServerNumber, is_banned: bool) {
        let changed = self.by.send_if_modified(|by| if is_banned { by.insert(server) } else { by.remove(&server) });
        let Some(directory) = self.directories.get(server.place()).filter(|_| changed) else { return };
        let path = directory.join(FILE_NAME);
        let kept = if is_banned { durable_file::replace(&path, b"") } else { durable_file::remove(&path) };
        if let Err(error) = kept {
            error!(error = %describe(&error), path = %path.display(), is_banned, "what a server says of a ban is not kept over a restart");
        }
    }

    /// Ends when another server than this one does.
    pub async fn by_another(&self, server: ServerNumber) {
        self.wait(|by| by.iter().any(|by| *by != server)).await;
    }

    /// Ends when no other server than this one does.
    pub async fn lifted_by_others(&self, server: ServerNumber) {
        self.wait(|by| by.iter().all(|by| *by == server)).await;
    }

    /// Follows what is said.
    pub fn watch(&self) -> watch::Receiver<BTreeSet<ServerNumber>> {
        self.by.subscribe()
    }

    async fn wait(&self, is_so: impl FnMut(&BTreeSet<ServerNumber>) -> bool) {
        // The sender lives in `self`.
        let _ = self.by.subscribe().wait_for(is_so).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_is_there_after_a_restart_until_that_server_lifts_it() {
        let (north, south) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("directory"));
        let open = || Bans::open(vec![north.path().to_owned(), south.path().to_owned()]);
        let [first, second] = ServerNumber::up_to(2).collect::<Vec<_>>()[..] else { panic!("two") };
        assert!(!open().are_there());
        open().say(second, true);
        let bans = open();
        assert!(bans.are_by(second) && bans.are_by_another(first) && !bans.are_by_another(second));
        bans.say(second, false);
        assert!(!open().are_there() && !bans.are_there());
    }

    #[test]
    fn of_one_server_nothing_is_kept() {
        let bans = Bans::default();
        bans.say(ServerNumber::FIRST, true);
        assert!(bans.are_by(ServerNumber::FIRST) && !bans.are_by_another(ServerNumber::FIRST));
    }
}
