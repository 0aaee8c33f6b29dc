//! A whole machine: firmware, disk, clock and network by QEMU (software emulation alone), and a chip by swtpm that the guest's own kernel
//! drives.
//!
//! ```text
//!  Board: disk, chip, firmware's variables ── power_on ──► Machine: console, a shell in the guest, QEMU's controls ── cut ──► Board
//! ```
//! Needs the packages of `scripts/setup --image`. A machine is killed when it is dropped, when we die, and when it has used
//! [`MOST_CPU_SECONDS`].

mod architecture;
mod board;
mod qmp;
mod shell;
mod write_log;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::child::{dies_with_us, spawn};
use crate::deployment::wait_for;
pub use architecture::Architecture;
pub use board::{Board, Partition};
use qmp::Qmp;
pub use shell::Shell;
pub use write_log::WriteLog;

/// A guest that hangs under emulation would burn a core for ever.
pub const MOST_CPU_SECONDS: u32 = 1200;
/// Longest that a boot may take on a busy machine without hardware help.
pub const BOOT_DEADLINE: Duration = Duration::from_secs(600);
/// Longest that QEMU and swtpm may take to open their sockets.
const SOCKET_DEADLINE: Duration = Duration::from_secs(60);

/// How a board is powered on.
#[derive(Clone, Debug)]
pub struct Power {
    /// A port of our loopback: the only thing that the guest can reach, as 10.0.2.100:8081.
    pub server_port: u16,
    /// What the machine's clock shows, as `-rtc base=` takes it; ours if not given.
    pub clock: Option<String>,
    /// Whether there is a chip.
    pub chip: bool,
    /// Whether the disk refuses writes.
    pub read_only_disk: bool,
    /// A string of the machine's SMBIOS (type 11), which whoever owns the machine can set. Source: SMBIOS reference specification, 7.12.
    pub smbios: Option<String>,
    /// Whether the machine starts anew when its kernel asks for it, as devices do: after a panic, too. Else that is its end.
    pub restarts: bool,
    /// Whether every write to the disk is written down: [`Machine::writes`], [`Board::write_log`].
    pub log_writes: bool,
}

impl Power {
    /// A sound machine that reaches the server at `server_port`.
    pub fn reaching(server_port: u16) -> Self {
        Self {
            server_port,
            clock: None,
            chip: true,
            read_only_disk: false,
            smbios: None,
            restarts: true,
            log_writes: false,
        }
    }
}

/// A board under power.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    chip: Option<Child>,
    qmp: Qmp,
    shell: Shell,
    console: PathBuf,
    writes: PathBuf,
}

impl Machine {
    fn start(board: &Board, power: &Power) -> io::Result<Self> {
        let chip = if power.chip { Some(start_chip(board)?) } else { None };
        let console = board.next_console();
        let _ = std::fs::remove_file(board.file("shell.sock"));
        let _ = std::fs::remove_file(board.file("qmp.sock"));
        let mut command = dies_with_us("prlimit");
        command
            .arg(format!("--cpu={MOST_CPU_SECONDS}"))
            .arg(board.architecture().qemu())
            .args(arguments(board, power, &console));
        if power.log_writes {
            std::fs::File::create(board.writes())?;
        }
        let errors = std::fs::File::create(board.file("qemu.log"))?;
        let qemu = spawn_quietly(command, errors)?;
        let connected = Shell::connect(&board.file("shell.sock"), SOCKET_DEADLINE)
            .and_then(|shell| Ok((shell, Qmp::connect(&board.file("qmp.sock"), SOCKET_DEADLINE)?)));
        match connected {
            Ok((shell, qmp)) => Ok(Self { qemu, chip, qmp, shell, console, writes: board.writes() }),
            Err(error) => {
                kill(qemu);
                if let Some(chip) = chip {
                    kill(chip);
                }
                let said = std::fs::read_to_string(board.file("qemu.log")).unwrap_or_default();
                Err(io::Error::other(format!(
                    "{} (scripts/setup --image): {error}: {said}",
                    board.architecture().qemu()
                )))
            }
        }
    }

    /// The shell in the guest, once the guest has started it.
    pub fn shell(&mut self) -> io::Result<&mut Shell> {
        self.shell.wait_ready(BOOT_DEADLINE).map_err(|error| self.with_console(&error))?;
        Ok(&mut self.shell)
    }

    /// What has come out of the serial console in this boot.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Waits until the console has said `text`.
    pub fn expect_console(&mut self, text: &str, deadline: Duration) -> io::Result<()> {
        let said = wait_for(deadline, || self.console().contains(text).then_some(()));
        said.ok_or_else(|| self.with_console(&format!("the console does not say {text:?}")))
    }

    /// Waits until the guest has ended by itself: powered off, or started anew.
    pub fn expect_end(&mut self, deadline: Duration) -> io::Result<()> {
        let ended = wait_for(deadline, || self.qemu.try_wait().ok().flatten());
        ended.map(drop).ok_or_else(|| self.with_console(&"the machine goes on"))
    }

    /// Pulls the network's plug, or puts it in again.
    pub fn plug_network(&mut self, up: bool) -> io::Result<()> {
        self.qmp.execute("set_link", &json!({ "name": "net", "up": up })).map(drop)
    }

    /// How many entries the log of the disk's writes has by now.
    pub fn writes(&self) -> io::Result<usize> {
        write_log::length(&self.writes)
    }

    /// Asks the guest to shut down in order, and waits until it has.
    pub fn shut_down(mut self) -> io::Result<()> {
        self.shell()?.send("systemctl poweroff")?;
        self.expect_end(BOOT_DEADLINE)
    }

    /// Cuts the power: nothing is flushed, nothing is said to the chip.
    pub fn cut(self) {}

    /// An error that shows what the console said last.
    pub fn with_console(&self, error: &dyn std::fmt::Display) -> io::Error {
        let console = self.console();
        let tail: Vec<&str> = console.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        io::Error::other(format!("{error}; the console's last lines:\n{}", tail.join("\n")))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill().and_then(|()| self.qemu.wait());
        if let Some(chip) = self.chip.take() {
            kill(chip);
        }
    }
}

fn arguments(board: &Board, power: &Power, console: &Path) -> Vec<String> {
    let shown = |path: &Path| path.display().to_string();
    let server = format!("guestfwd=tcp:10.0.2.100:8081-cmd:socat - TCP4:127.0.0.1:{}", power.server_port);
    let kind = board.architecture();
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<String>>();
    let mut arguments = words(kind.machine());
    arguments.extend(words("-m 512 -smp 1 -nodefaults -no-user-config -display none"));
    if !power.restarts {
        arguments.push("-no-reboot".to_owned());
    }
    arguments.extend(["-serial".to_owned(), format!("file:{}", shown(console))]);
    arguments.extend(words(kind.shell()));
    let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    add("-drive", format!("if=pflash,format=raw,readonly=on,file={}", kind.firmware()));
    add("-drive", format!("if=pflash,format=raw,file={}", shown(&board.variables())));
    add("-blockdev", disk(board, power).to_string());
    add("-device", "virtio-blk-pci,drive=disk".to_owned());
    add("-netdev", format!("user,id=net,restrict=on,{server}"));
    add("-device", "virtio-net-pci,id=card,netdev=net,romfile=".to_owned());
    add("-chardev", format!("socket,id=shell,path={},server=on,wait=off", shown(&board.file("shell.sock"))));
    add("-qmp", format!("unix:{},server=on,wait=off", shown(&board.file("qmp.sock"))));
    if let Some(clock) = &power.clock {
        add("-rtc", format!("base={clock}"));
    }
    if let Some(text) = &power.smbios {
        add("-smbios", format!("type=11,value={}", text.replace(',', ",,")));
    }
    if power.chip {
        add("-chardev", format!("socket,id=chip,path={}", shown(&board.file("chip.sock"))));
        add("-tpmdev", "emulator,id=tpm,chardev=chip".to_owned());
        add("-device", format!("{},tpmdev=tpm", kind.chip()));
    }
    arguments
}

/// The disk as QEMU's block layer takes it.
fn disk(board: &Board, power: &Power) -> Value {
    let raw = |path: PathBuf| json!({ "driver": "raw", "file": { "driver": "file", "filename": path } });
    let mut disk = raw(board.disk());
    if power.log_writes {
        let log = raw(board.writes());
        disk = json!({ "driver": "blklogwrites", "file": disk, "log": log,
            "log-sector-size": write_log::LOG_SECTOR_BYTES, "log-super-update-interval": 1 });
    } else {
        disk["read-only"] = power.read_only_disk.into();
        disk["file"]["read-only"] = power.read_only_disk.into();
    }
    disk["node-name"] = "disk".into();
    disk
}

fn start_chip(board: &Board) -> io::Result<Child> {
    let socket = board.file("chip.sock");
    let _ = std::fs::remove_file(&socket);
    let mut command = dies_with_us("swtpm");
    command
        .args(["socket", "--tpm2", "--tpmstate"])
        .arg(format!("dir={}", board.chip().display()))
        .arg("--ctrl")
        .arg(format!("type=unixio,path={}", socket.display()));
    let errors = std::fs::File::create(board.file("swtpm.log"))?;
    let chip = spawn_quietly(command, errors)?;
    match wait_for(SOCKET_DEADLINE, || socket.exists().then_some(())) {
        Some(()) => Ok(chip),
        None => {
            kill(chip);
            Err(io::Error::other("swtpm (package swtpm) does not open its socket"))
        }
    }
}

fn spawn_quietly(mut command: std::process::Command, errors: std::fs::File) -> io::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    spawn(command)
}

fn kill(mut child: Child) {
    let _ = child.kill().and_then(|()| child.wait());
}
