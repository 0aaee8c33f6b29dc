//! The server, the image that was made for it, and the board that every story begins with a copy of.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ironroot_lab::deployment::{Server, ServerOptions, TRUST_DOMAIN, wait_for};
use ironroot_lab::machine::{Architecture, BOOT_DEADLINE, Board, Machine, Power, Shell};

use crate::{Outcome, stories::require};

/// The unix user of the workload in the image (`swtpm-tests/image`).
pub const WORKLOAD: u32 = 60_001;
/// Longest that the agent may take for something after its start, on a busy machine.
pub const AGENT_DEADLINE: Duration = Duration::from_secs(120);

/// In the guest: how often the agent says that it has sealed since its start; exit code 1 if never.
pub const COUNT_SEALED: &str = "journalctl --no-pager -o cat -u ironroot-agent | grep -c 'identities sealed'";

/// What stories share.
pub struct Lab {
    /// The server, on this machine.
    pub server: Server,
    /// How many times the power is cut.
    pub cuts: u32,
    architecture: Architecture,
    image: PathBuf,
    enrolled: Option<Enrolled>,
    /// The SPIFFE ID that stands for every device of the site.
    gateways: String,
}

/// A board that has served and is off.
struct Enrolled {
    board: Board,
    /// Of its endorsement key.
    hash: String,
    /// What its clock showed when it was shut down, UNIX seconds.
    off_since: u64,
}

/// What the workload in the image has written down.
pub struct FirstSvid {
    /// Seconds from the kernel's start until it had an identity.
    pub seconds: f64,
    /// What `api fetch x509` printed.
    pub said: String,
}

impl Lab {
    /// Starts a server, and makes an image that knows it.
    pub fn begin(architecture: Architecture, cuts: u32) -> Outcome<Self> {
        let server =
            Server::start(&ServerOptions { x509_svid_ttl: "1h", agent_ttl: "24h", ..ServerOptions::default() });
        let image = Path::new("target/test-image").join(architecture.name());
        std::fs::create_dir_all(&image)?;
        let anchor = image.join("bootstrap.pem");
        std::fs::write(&anchor, server.bundle_pem())?;
        make_image(architecture, &image, &anchor, &image.join("keys"), &[])?;
        let gateways = server.create_node_alias("/gateway", "site:berlin");
        server.create_entry(&gateways, "/app", &[&format!("unix:uid:{WORKLOAD}")], &[]);
        Ok(Self { server, cuts, architecture, image, enrolled: None, gateways })
    }

    /// A board off the line that nobody has enrolled.
    pub fn new_board(&self) -> Outcome<Board> {
        Ok(Board::manufacture(self.architecture, &self.image)?)
    }

    /// An image of its own, with these files (path and content) in its root besides; signed as the others. The directory it is in.
    pub fn image(&self, name: &str, files: &[(&str, &str)]) -> Outcome<PathBuf> {
        let out = self.image.join(name);
        std::fs::create_dir_all(&out)?;
        make_image(self.architecture, &out, &self.image.join("bootstrap.pem"), &self.image.join("keys"), files)?;
        Ok(out)
    }

    /// A board off the line with this image.
    pub fn board_with(&self, image: &Path) -> Outcome<Board> {
        Ok(Board::manufacture(self.architecture, image)?)
    }

    /// What operators call the device that [`Lab::enrolled_board`] gives.
    pub fn serial(&self) -> Outcome<String> {
        Ok(serial(&self.enrolled.as_ref().ok_or("no board is enrolled yet")?.hash))
    }

    /// How a board is powered on that can reach the server.
    pub fn power(&self) -> Power {
        Power::reaching(self.server.port())
    }

    /// A board that is enrolled, has served, has sealed what it serves, and is off: a copy of its own for each story.
    pub fn enrolled_board(&mut self) -> Outcome<Board> {
        if self.enrolled.is_none() {
            let board = self.new_board()?;
            let mut machine = board.power_on(&self.power())?;
            let hash = self.enrol(&mut machine)?;
            expect_sealed(machine.shell()?)?;
            self.keep(board, machine, hash)?;
        }
        let Enrolled { board, hash, .. } = self.enrolled.as_ref().ok_or("just made")?;
        // The server would know the copy's chip for one that was set back, and it is: to this server it is a new device.
        self.server.cli(&["device", "delete", hash]);
        self.import(hash);
        Ok(board.copy()?)
    }

    /// Shuts the machine down in order and keeps its board, known by this hash, for the stories that need an enrolled one.
    pub fn keep(&mut self, board: Board, mut machine: Machine, hash: String) -> Outcome<()> {
        let off_since = clock(machine.shell()?)?;
        machine.shut_down()?;
        self.enrolled = Some(Enrolled { board, hash, off_since });
        Ok(())
    }

    /// What the clock of the enrolled board showed when it was shut down, UNIX seconds.
    pub fn off_since(&self) -> Outcome<u64> {
        Ok(self.enrolled.as_ref().ok_or("no board is enrolled yet")?.off_since)
    }

    /// The factory's step: the row that the device prints at its first boot, and a serial number and a label to it. The key's hash.
    pub fn enrol(&self, machine: &mut Machine) -> Outcome<String> {
        machine.expect_console("ek_sha256", BOOT_DEADLINE)?;
        let row = wait_for(AGENT_DEADLINE, || hash_on(&machine.console()));
        let hash = row.ok_or_else(|| machine.with_console(&"no row of a manifest on the console"))?;
        self.import(&hash);
        Ok(hash)
    }

    /// A serial number and a label for the chip with this hash, as the line gives them.
    pub fn import(&self, hash: &str) {
        self.server.import_devices(&format!("ek_sha256,serial,label:site\n{hash},{},berlin\n", serial(hash)));
    }

    /// One more entry for workloads of every device: what is held changes, and is sealed anew.
    pub fn create_entry(&self, path: &str, uid: u32) -> String {
        self.create_entry_of(path, &[&format!("unix:uid:{uid}")])
    }

    /// The same with these selectors.
    pub fn create_entry_of(&self, path: &str, selectors: &[&str]) -> String {
        self.server.create_entry(&self.gateways, path, selectors, &[])
    }

    /// The server runs, whatever a story has done to it.
    pub fn settle(&mut self) {
        if self.server.process().is_none() {
            self.server.restart();
        }
    }
}

/// The serial number that the line gives to the board with this endorsement key.
fn serial(hash: &str) -> String {
    format!("SN-{}", &hash[..8])
}

fn make_image(
    architecture: Architecture,
    out: &Path,
    anchor: &Path,
    keys: &Path,
    files: &[(&str, &str)],
) -> Outcome<()> {
    let overlay = overlay()?;
    for (path, content) in files {
        let file = overlay.path().join(path);
        std::fs::create_dir_all(file.parent().ok_or("a file of the root")?)?;
        std::fs::write(file, content)?;
    }
    let mut make = Command::new("scripts/image");
    make.args([
        "--quick",
        "--arch",
        architecture.name(),
        "--trust-domain",
        TRUST_DOMAIN,
        "--server",
        "10.0.2.100:8081",
    ]);
    make.arg("--overlay").arg(overlay.path());
    make.arg("--anchor").arg(anchor).arg("--out").arg(out).arg("--keys").arg(keys);
    require(make.status()?.success(), "scripts/image made no image")
}

/// What the lab adds to an image. In a folder that is closed to everybody else, as `mktemp -d` makes them: the image's `/` is not.
fn overlay() -> Outcome<tempfile::TempDir> {
    let folder = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o700)).tempdir()?;
    let copy = "umask 022; tar -C swtpm-tests/image/root --mode=u=rwX,go=rX -c etc usr | tar -C \"$0\" -x";
    let copied = Command::new("sh").args(["-c", copy]).arg(folder.path()).status()?;
    require(copied.success(), "the lab's files cannot be copied")?;
    Ok(folder)
}

/// What the guest's clock shows, UNIX seconds.
pub fn clock(shell: &mut Shell) -> Outcome<u64> {
    Ok(shell.run("date +%s")?.parse()?)
}

/// The last word that is a SHA-256 in hexadecimal digits after the manifest's head line.
fn hash_on(console: &str) -> Option<String> {
    let (_, after) = console.split_once("ek_sha256")?;
    let is_hash = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    after.split(|c: char| !c.is_ascii_alphanumeric()).find(is_hash).map(str::to_owned)
}

/// Waits until the workload in the image has an identity.
pub fn first_svid(machine: &mut Machine) -> Outcome<FirstSvid> {
    let found =
        machine.shell()?.expect("the workload has an identity", "cat /run/lab-workload", BOOT_DEADLINE, |said, _| {
            said.contains("SPIFFE ID")
        });
    let said = found.map_err(|error| told_by_agent(machine, &error))?;
    let seconds =
        said.lines().find_map(|line| line.strip_prefix("SECONDS ")).and_then(|seconds| seconds.trim().parse().ok());
    Ok(FirstSvid { seconds: seconds.ok_or("no time beside the identity")?, said })
}

/// What `uid` gets now, or what it is told.
pub fn fetch(shell: &mut Shell, uid: u32) -> Outcome<Result<String, String>> {
    fetch_by(shell, "ironroot-agent", uid)
}

/// What this copy of the agent's program gets as `uid`, or what it is told.
pub fn fetch_by(shell: &mut Shell, program: &str, uid: u32) -> Outcome<Result<String, String>> {
    let (said, code) = shell.try_run(&as_workload(program, "fetch x509 -timeout 5s", uid))?;
    Ok(if code == "0" { Ok(said) } else { Err(said) })
}

/// What `api explain` says to this copy of the agent's program as `uid`.
pub fn explain_by(shell: &mut Shell, program: &str, uid: u32) -> Outcome<String> {
    Ok(shell.run(&as_workload(program, "explain", uid))?)
}

fn as_workload(program: &str, question: &str, uid: u32) -> String {
    format!(
        "setpriv --reuid={uid} --regid={uid} --clear-groups {program} api {question} -socketPath /run/ironroot-agent/public/api.sock"
    )
}

/// Waits until `uid` gets an identity.
pub fn expect_identity(shell: &mut Shell, uid: u32) -> Outcome<String> {
    let mut last = String::new();
    let got = wait_for(AGENT_DEADLINE, || match fetch(shell, uid) {
        Ok(Ok(said)) => Some(Ok(said)),
        Ok(Err(said)) => {
            last = said;
            None
        }
        Err(error) => Some(Err(error)),
    });
    got.unwrap_or_else(|| Err(format!("user {uid} gets no identity: {last}\n{}", journal(shell)).into()))
}

/// Waits until the agent has logged `text` in this boot.
pub fn expect_log(shell: &mut Shell, text: &str) -> Outcome<String> {
    let command = format!("journalctl --no-pager -o cat -u ironroot-agent | grep -F '{text}' | tail -n 1");
    match shell.expect(&format!("the agent logs {text:?}"), &command, AGENT_DEADLINE, |said, _| said.contains(text)) {
        Ok(line) => Ok(line),
        Err(error) => Err(format!("{error}\n{}", journal(shell)).into()),
    }
}

/// Waits until what is served is on the disk.
pub fn expect_sealed(shell: &mut Shell) -> Outcome<()> {
    expect_log(shell, "identities sealed").map(drop)
}

/// How often the agent has sealed since its start.
pub fn count_sealed(shell: &mut Shell) -> Outcome<u64> {
    Ok(shell.try_run(COUNT_SEALED)?.0.parse()?)
}

/// Waits until the agent has sealed more often than `before`.
pub fn expect_more_sealed(shell: &mut Shell, before: u64) -> Outcome<()> {
    let more = format!("test $({COUNT_SEALED}) -gt {before}");
    Ok(shell.expect("the agent seals", &more, AGENT_DEADLINE, |_, yes| yes).map(drop)?)
}

/// What the agent has logged last.
pub fn journal(shell: &mut Shell) -> String {
    shell
        .try_run("journalctl --no-pager -o cat -u ironroot-agent -u ironroot-manifest | tail -n 40")
        .map(|(said, _)| said)
        .unwrap_or_default()
}

fn told_by_agent(machine: &mut Machine, error: &std::io::Error) -> Box<dyn std::error::Error + Send + Sync> {
    let journal = machine.shell().map(journal).unwrap_or_default();
    machine.with_console(&format!("{error}\n{journal}")).into()
}
