//! A relay to a socket of the agent's.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

use crate::served::PATIENCE;

const RELAY: &str = "
import os, socket, sys, threading
at = socket.socket(socket.AF_UNIX); at.bind(sys.argv[1] + '.new'); at.listen()
# It is there once it listens.
os.rename(sys.argv[1] + '.new', sys.argv[1])
def pump(a, b):
    while data := a.recv(65536): b.sendall(data)
    b.shutdown(socket.SHUT_WR)
while True:
    client, _ = at.accept()
    agent = socket.socket(socket.AF_UNIX); agent.connect(sys.argv[2])
    for pair in ((client, agent), (agent, client)): threading.Thread(target=pump, args=pair, daemon=True).start()
";

/// Killed on drop.
pub struct Relay(Child);

impl Relay {
    /// From `at` to `to`, in a PID namespace of its own.
    pub fn in_a_pid_namespace(at: &Path, to: &Path) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "python3", "-c", RELAY]).arg(at).arg(to);
        let relay = Self(command.spawn().expect("unshare starts"));
        let deadline = Instant::now() + PATIENCE;
        while !at.exists() {
            assert!(Instant::now() < deadline, "the relay does not listen");
            std::thread::yield_now();
        }
        relay
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
