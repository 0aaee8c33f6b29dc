//! Which servers ban this agent: the word of one holds for what came from all, over restarts too.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use ironroot_shell::describe;
use tokio::sync::watch;
use tracing::error;

use crate::durable_file::{self, Writes};
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
    /// Of each, whether the file is there.
    on_disk: Arc<[AtomicBool]>,
    writes: Writes,
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
        let stand: Vec<bool> = directories.iter().map(stands).collect();
        let servers = ServerNumber::up_to(directories.len());
        let by = servers.zip(&stand).filter(|(_, stands)| **stands).map(|(server, _)| server).collect();
        let on_disk = stand.into_iter().map(AtomicBool::new).collect();
        Self { by: watch::Sender::new(by), directories: directories.into(), on_disk, writes: Writes::default() }
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

    /// What this server says now: it holds at once. It is on the disk afterwards, or, where the disk does not take it, after a later
    /// call: each says it again.
    pub async fn say(&self, server: ServerNumber, is_banned: bool) {
        self.by.send_if_modified(|by| if is_banned { by.insert(server) } else { by.remove(&server) });
        let Some(directory) = self.directories.get(server.place()) else { return };
        let (path, place, on_disk) = (directory.join(FILE_NAME), server.place(), Arc::clone(&self.on_disk));
        // Whoever writes notes it, too: a turn that another server's ban cuts short does not wait for it any more.
        let keep = move || {
            if on_disk[place].load(Relaxed) == is_banned {
                return Ok(());
            }
            if is_banned {
                durable_file::replace(&path, b"")?
            } else {
                durable_file::remove(&path)?
            }
            on_disk[place].store(is_banned, Relaxed);
            Ok::<_, std::io::Error>(())
        };
        if let Err(error) = self.writes.run(keep).await {
            let path = directory.join(FILE_NAME);
            error!(error = %describe(&error), path = %path.display(), is_banned, "what a server says of a ban is not kept over a restart; tried again at the next contact");
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
    use futures_util::FutureExt;

    use super::*;
    use crate::durable_file::slow_disk::with_a_slow_disk;

    #[tokio::test]
    async fn a_ban_is_there_after_a_restart_until_that_server_lifts_it() {
        let (north, south) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("directory"));
        let open = || Bans::open(vec![north.path().to_owned(), south.path().to_owned()]);
        let [first, second] = ServerNumber::up_to(2).collect::<Vec<_>>()[..] else { panic!("two") };
        assert!(!open().are_there());
        open().say(second, true).await;
        let bans = open();
        assert!(bans.are_by(second) && bans.are_by_another(first) && !bans.are_by_another(second));
        bans.say(second, false).await;
        assert!(!open().are_there() && !bans.are_there());
    }

    #[tokio::test]
    async fn a_ban_that_the_disk_does_not_take_holds_at_once_and_is_kept_by_a_later_word() {
        let place = tempfile::tempdir().expect("directory");
        let late = place.path().join("late");
        let bans = Bans::open(vec![late.clone()]);
        bans.say(ServerNumber::FIRST, true).await;
        assert!(bans.are_there() && !late.exists());
        std::fs::create_dir(&late).expect("made");
        bans.say(ServerNumber::FIRST, true).await;
        assert!(Bans::open(vec![late]).are_there());
    }

    #[test]
    fn a_word_of_a_turn_that_was_cut_short_is_on_the_disk_and_known_to_be() {
        with_a_slow_disk(|disk| async {
            let place = tempfile::tempdir().expect("directory");
            let bans = Bans::open(vec![place.path().to_owned()]);
            assert!(bans.say(ServerNumber::FIRST, true).now_or_never().is_none(), "begun, and dropped");
            disk.is_waited_for(bans.say(ServerNumber::FIRST, false)).await;
            assert!(!Bans::open(vec![place.path().to_owned()]).are_there(), "what was said last");
        });
    }

    #[tokio::test]
    async fn of_one_server_nothing_is_kept() {
        let bans = Bans::default();
        bans.say(ServerNumber::FIRST, true).await;
        assert!(bans.are_by(ServerNumber::FIRST) && !bans.are_by_another(ServerNumber::FIRST));
    }
}
