//! A software TPM of one's own.

mod ports;
mod unix_socket;

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ironroot_attest::tpm::TpmAddress;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tss_esapi::{Context, TctiNameConf};

use crate::child::{dies_with_us, spawn};
pub use ports::Ports;
pub use unix_socket::UnixSwtpm;

/// How long an emulator may take to answer on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long it may take for one of the raw commands below.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two looks at a starting emulator.
const POLL: Duration = Duration::from_millis(10);

/// TPM2_Startup(TPM_SU_CLEAR), Part 3 §9.3.
const STARTUP_CLEAR: [u8; 12] = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0];
/// TPM2_GetTestResult, Part 3 §10.4: works in every state, also before TPM2_Startup.
const GET_TEST_RESULT: [u8; 10] = [0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x7c];

/// A TPM in a process, with its own state and ports. Dropped: killed and forgotten.
#[derive(Debug)]
pub struct Swtpm {
    directory: TempDir,
    ports: Ports,
    process: Option<Child>,
}

impl Swtpm {
    /// Manufactures a new chip and powers it on.
    pub fn start() -> io::Result<Swtpm> {
        Self::with_state(tempfile::Builder::new().prefix("ironroot-swtpm-").tempdir()?)
    }

    /// A second chip with a copy of this one's state: what a thief of a virtual TPM has.
    pub fn clone_state(&self) -> io::Result<Swtpm> {
        Self::with_copy_of(self.state())
    }

    /// A chip with a copy of the state in this directory.
    pub fn with_copy_of(state: &Path) -> io::Result<Swtpm> {
        let directory = tempfile::Builder::new().prefix("ironroot-swtpm-").tempdir()?;
        for entry in fs::read_dir(state)? {
            let entry = entry?;
            // Not the lock that the emulator holds.
            if entry.file_type()?.is_file() && !entry.file_name().to_string_lossy().starts_with('.') {
                fs::copy(entry.path(), directory.path().join(entry.file_name()))?;
            }
        }
        Self::with_state(directory)
    }

    /// Where an agent finds this chip.
    pub fn address(&self) -> TpmAddress {
        TpmAddress::Swtpm { host: [127, 0, 0, 1].into(), port: self.ports.data() }
    }

    /// The TCP port for commands; the control port is the next one.
    pub fn data_port(&self) -> u16 {
        self.ports.data()
    }

    /// The address in the words of the TSS library and of tpm2-tools (`-T`).
    pub fn tcti(&self) -> String {
        self.address().to_string()
    }

    /// The directory of the chip's persistent state.
    pub fn state(&self) -> &Path {
        self.directory.path()
    }

    /// An ESYS context of its own, for what no agent would ask a TPM to do.
    pub fn esys(&self) -> tss_esapi::Result<Context> {
        Context::new(self.tcti().parse::<TctiNameConf>()?)
    }

    /// Cuts the power: `kill -9`, no TPM2_Shutdown.
    pub fn stop(&mut self) -> io::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Restores the power, at the same address: TPM reset, TPM2_Startup(CLEAR).
    pub fn start_again(&mut self) -> io::Result<()> {
        self.stop()?;
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            match self.power_on() {
                Ok(process) => {
                    self.process = Some(process);
                    return Ok(());
                }
                // The old process' sockets may linger for a moment.
                Err(_) if Instant::now() < deadline => thread::sleep(POLL),
                Err(error) => return Err(error),
            }
        }
    }

    /// A power cut and power back.
    pub fn power_cycle(&mut self) -> io::Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Resets the chip under a running system (the reset line, not the power), and starts it up: PCRs are zero again.
    pub fn reset(&self) -> io::Result<()> {
        self.reset_without_startup()?;
        self.transmit(&STARTUP_CLEAR)?;
        Ok(())
    }

    /// Resets the chip and leaves it without TPM2_Startup: it answers TPM_RC_INITIALIZE to everything.
    pub fn reset_without_startup(&self) -> io::Result<()> {
        let control = format!("127.0.0.1:{}", self.ports.control());
        let status = Command::new("swtpm_ioctl").args(["--tcp", &control, "-i"]).stdout(Stdio::null()).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("swtpm_ioctl -i: {status}"))) }
    }

    /// Makes these PCR banks active and no other (TPM2_PCR_Allocate with platform authorization, Part 3 §22.5), and powers the
    /// chip off and on for that. `banks`: TPM_ALG_IDs of SHA-1, SHA-256, SHA-384 and SHA-512.
    pub fn allocate_pcr_banks(&mut self, banks: &[u16]) -> io::Result<()> {
        let mut command = vec![0x80, 0x02, 0, 0, 0, 0, 0, 0, 0x01, 0x2b, 0x40, 0x00, 0x00, 0x0c];
        // One authorization: TPM_RS_PW, no nonce, no attributes, the empty password.
        command.extend([0, 0, 0, 9, 0x40, 0x00, 0x00, 0x09, 0, 0, 0, 0, 0]);
        command.extend([0, 0, 0, 4]);
        for hash in [0x0004u16, 0x000b, 0x000c, 0x000d] {
            let octet = if banks.contains(&hash) { 0xff } else { 0 };
            command.extend(hash.to_be_bytes());
            command.extend([3, octet, octet, octet]);
        }
        command[5] = u8::try_from(command.len()).map_err(io::Error::other)?;
        let response = self.transmit(&command)?;
        if response.len() < 10 || response[6..10] != [0; 4] {
            return Err(io::Error::other("the chip does not allocate these PCR banks"));
        }
        self.power_cycle()
    }

    /// Extends these registers of the SHA-256 bank, in order (TPM2_PCR_Extend with the empty password, Part 3 §22.2): what firmware does.
    pub fn extend(&self, digests: &[(u32, [u8; 32])]) -> io::Result<()> {
        for (pcr, digest) in digests {
            let mut command = vec![0x80, 0x02, 0, 0, 0, 65, 0, 0, 0x01, 0x82];
            command.extend(pcr.to_be_bytes());
            command.extend([0, 0, 0, 9, 0x40, 0x00, 0x00, 0x09, 0, 0, 0, 0, 0]);
            // One digest, of SHA-256.
            command.extend([0, 0, 0, 1, 0x00, 0x0b]);
            command.extend(digest);
            let response = self.transmit(&command)?;
            if response.len() < 10 || response[6..10] != [0; 4] {
                return Err(io::Error::other(format!("the chip does not extend PCR {pcr}")));
            }
        }
        Ok(())
    }

    /// The chip hangs: it takes commands and does not answer.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// The chip goes on where [`freeze`](Swtpm::freeze) stopped it.
    pub fn thaw(&self) -> io::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Sends raw command bytes and returns the raw response, header included.
    pub fn transmit(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.data()))?;
        stream.set_read_timeout(Some(COMMAND_DEADLINE))?;
        stream.write_all(command)?;
        let mut response = vec![0; 4096];
        let length = stream.read(&mut response)?;
        response.truncate(length);
        Ok(response)
    }

    /// As [`loaded_handles`](Self::loaded_handles), once there are none: whoever had a job done has its answer a moment before what it
    /// took is given back. After twenty seconds, what there is then.
    pub fn left_loaded(&self) -> io::Result<Vec<u32>> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let loaded = self.loaded_handles()?;
            if loaded.is_empty() || Instant::now() >= deadline {
                return Ok(loaded);
            }
            thread::yield_now();
        }
    }

    /// Handles of all transient objects and sessions in the chip, as the chip itself tells: TPM2_GetCapability
    /// (TPM_CAP_HANDLES), Part 3 §30.2.
    pub fn loaded_handles(&self) -> io::Result<Vec<u32>> {
        let mut loaded = Vec::new();
        // Transient objects; loaded sessions; saved sessions.
        for first in [0x8000_0000u32, 0x0200_0000, 0x0300_0000] {
            let mut command = vec![0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, 1];
            command.extend(first.to_be_bytes());
            command.extend(64u32.to_be_bytes());
            let response = self.transmit(&command)?;
            if response.len() < 19 || response[6..10] != [0; 4] {
                return Err(io::Error::other("the chip does not list its handles"));
            }
            loaded.extend(response[19..].chunks_exact(4).map(|h| u32::from_be_bytes([h[0], h[1], h[2], h[3]])));
        }
        Ok(loaded)
    }

    /// How many failures the chip counts towards its dictionary attack lockout: TPM2_GetCapability (TPM_PT_LOCKOUT_COUNTER), Part 2
    /// §6.13.
    pub fn lockout_counter(&self) -> io::Result<u32> {
        let command = [0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, 6, 0, 0, 0x02, 0x0e, 0, 0, 0, 1];
        let response = self.transmit(&command)?;
        // Header, more data, capability, count, property, value.
        match response.get(23..27) {
            Some(value) if response[6..10] == [0; 4] && response[19..23] == [0, 0, 0x02, 0x0e] => {
                Ok(u32::from_be_bytes([value[0], value[1], value[2], value[3]]))
            }
            _ => Err(io::Error::other("the chip does not tell its lockout counter")),
        }
    }

    fn with_state(directory: TempDir) -> io::Result<Swtpm> {
        let mut chip = Swtpm { directory, ports: Ports::reserve()?, process: None };
        let mut attempts = 0;
        loop {
            match chip.power_on() {
                Ok(process) => {
                    chip.process = Some(process);
                    return Ok(chip);
                }
                // Somebody who does not know our reservations took a port in between.
                Err(_) if attempts < 5 => chip.ports = Ports::reserve()?,
                Err(error) => return Err(error),
            }
            attempts += 1;
        }
    }

    /// Starts the process and waits until the chip answers.
    fn power_on(&self) -> io::Result<Child> {
        let mut command = dies_with_us("swtpm");
        command
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", self.state().display()))
            .arg("--server")
            .arg(format!("type=tcp,port={},bindaddr=127.0.0.1", self.ports.data()))
            .arg("--ctrl")
            .arg(format!("type=tcp,port={},bindaddr=127.0.0.1", self.ports.control()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.log())?);
        let mut process =
            spawn(command).map_err(|e| io::Error::new(e.kind(), format!("setpriv (util-linux) and swtpm: {e}")))?;
        match self.wait_ready(&mut process) {
            Ok(()) => Ok(process),
            Err(error) => {
                process.kill()?;
                process.wait()?;
                Err(error)
            }
        }
    }

    fn wait_ready(&self, process: &mut Child) -> io::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            if let Some(status) = process.try_wait()? {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                return Err(io::Error::other(format!("swtpm ended at once, {status}: {log}")));
            }
            // Any complete answer that is not TPM_RC_INITIALIZE: the emulator has started its TPM up.
            if self.transmit(&GET_TEST_RESULT).is_ok_and(|r| r.len() >= 10 && r[6..10] != [0, 0, 1, 0]) {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "swtpm does not answer"))
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("swtpm.log")
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(process) = &self.process else { return Err(io::Error::other("the chip is off")) };
        let pid = Pid::from_raw(i32::try_from(process.id()).expect("a process id is a positive i32"));
        kill(pid, signal).map_err(io::Error::from)
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        // A frozen process dies of SIGKILL as well; nothing better can be done about an error here.
        let _ = self.stop();
    }
}
