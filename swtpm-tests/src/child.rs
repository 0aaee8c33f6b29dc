//! Child processes that die with us, also when the test run is killed.

use std::fs;
use std::io;
use std::process::{Child, Command};
use std::sync::{OnceLock, mpsc};
use std::thread;

/// Closes what it has inherited beside its standard files, and becomes its arguments.
const CLOSES: &str =
    r#"for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -le 2 ] || exec {fd}>&-; done; unset SHLVL; exec "$@""#;

/// A command for `program` under `setpriv --pdeathsig KILL` (util-linux): the kernel kills it when we die. Add arguments, and
/// start it with [`spawn`].
///
/// It inherits its standard files alone: the TPM library opens its sockets so that children have them, too, and a software TPM that waits
/// for the end of a connection would wait for the child's.
pub fn dies_with_us(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "bash", "-c", CLOSES, "bash", program]);
    // What the daemons need in their environment they must see to themselves, as on a user's machine.
    command.env_remove("TSS2_LOG");
    command
}

/// Starts `command` from a thread that lives as long as this process.
///
/// The kernel sends the death signal when the *thread* that forked ends, and test threads and the runtime's blocking threads
/// end long before the process does. A thread with mounts of its own ([`SmallDisk`](crate::small_disk::SmallDisk)) starts its
/// children itself, since no other could show them what it sees; they die with it.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    if has_mounts_of_its_own()? {
        return command.spawn();
    }
    let (answer, answered) = mpsc::channel();
    let request = Request { command, answer };
    spawner().send(request).map_err(|_| io::Error::other("the spawning thread has ended"))?;
    answered.recv().map_err(|_| io::Error::other("the spawning thread has ended"))?
}

fn has_mounts_of_its_own() -> io::Result<bool> {
    Ok(fs::read_link("/proc/thread-self/ns/mnt")? != fs::read_link("/proc/self/ns/mnt")?)
}

struct Request {
    command: Command,
    answer: mpsc::Sender<io::Result<Child>>,
}

fn spawner() -> &'static mpsc::Sender<Request> {
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<Request>();
        thread::Builder::new()
            .name("lab-spawner".into())
            .spawn(move || {
                for mut request in inbox {
                    let child = request.command.spawn();
                    if let Err(mpsc::SendError(Ok(mut orphan))) = request.answer.send(child) {
                        // Nobody waits for it any more.
                        let _ = orphan.kill().and_then(|()| orphan.wait());
                    }
                }
            })
            .expect("the operating system has a thread for the lab");
        requests
    })
}
