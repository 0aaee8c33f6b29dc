//! What a machine is while its power is off.

use std::cell::Cell;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{Architecture, Machine, Power, WriteLog};

/// The partition that devices write to.
const DATA: &str = "ironroot-data";
/// Bytes of a sector, as `sfdisk` counts.
const SECTOR_BYTES: u64 = 512;

/// A disk, a chip, and the firmware's variables, in a directory of their own.
#[derive(Debug)]
pub struct Board {
    architecture: Architecture,
    directory: TempDir,
    consoles: Cell<u32>,
}

/// Where a partition lies on the disk, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Partition {
    /// Its first byte.
    pub start: u64,
    /// Its length.
    pub length: u64,
}

impl Board {
    /// A board off the line: a new chip, and what `scripts/image` left in `image` on the disk and in the firmware.
    pub fn manufacture(architecture: Architecture, image: &Path) -> io::Result<Self> {
        let board = Self::empty(architecture)?;
        copy(&image.join(image_name(architecture)), &board.disk())?;
        copy(&image.join("firmware-variables.fd"), &board.variables())?;
        fs::create_dir(board.chip())?;
        let mut setup = Command::new("swtpm_setup");
        // Without certificates: whoever runs this need not be allowed to write where swtpm keeps its CA.
        setup.args(["--tpm2", "--pcr-banks", "sha256", "--overwrite"]);
        run(setup.arg("--tpmstate").arg(board.chip()))?;
        Ok(board)
    }

    /// The same board once more: its disk, its chip, its firmware. What a story does to it, the next one does not see.
    pub fn copy(&self) -> io::Result<Self> {
        let board = Self::empty(self.architecture)?;
        copy(&self.disk(), &board.disk())?;
        copy(&self.variables(), &board.variables())?;
        run(Command::new("cp").arg("-r").arg(self.chip()).arg(board.chip()))?;
        Ok(board)
    }

    /// Puts `disk` in place of this board's own.
    pub fn take_disk_of(&self, other: &Self) -> io::Result<()> {
        copy(&other.disk(), &self.disk())
    }

    /// Puts the image in `image` on the disk as an update does: the partition with what the device has written stays.
    pub fn update(&self, image: &Path) -> io::Result<()> {
        let data = self.read(self.partition(DATA)?)?;
        copy(&image.join(image_name(self.architecture)), &self.disk())?;
        self.write(self.partition(DATA)?, &data)
    }

    /// Takes every key out of the firmware, so that Secure Boot is off.
    pub fn forget_keys(&self) -> io::Result<()> {
        copy(self.architecture.no_keys(), &self.variables())
    }

    /// Power on.
    pub fn power_on(&self, power: &Power) -> io::Result<Machine> {
        Machine::start(self, power)
    }

    /// The partition with this name.
    pub fn partition(&self, name: &str) -> io::Result<Partition> {
        let table = run(Command::new("sfdisk").arg("--json").arg(self.disk()))?;
        let table: Value = serde_json::from_str(&table).map_err(io::Error::other)?;
        let partitions = table["partitiontable"]["partitions"].as_array().cloned().unwrap_or_default();
        let found = partitions.iter().find(|partition| partition["name"] == name);
        let found = found.ok_or_else(|| io::Error::other(format!("the disk has no partition {name}")))?;
        let bytes = |what: &str| found[what].as_u64().unwrap_or_default() * SECTOR_BYTES;
        Ok(Partition { start: bytes("start"), length: bytes("size") })
    }

    /// Changes every `step`-th byte of a partition.
    pub fn tamper(&self, partition: Partition, step: u64) -> io::Result<()> {
        let mut disk = fs::OpenOptions::new().read(true).write(true).open(self.disk())?;
        for offset in (partition.start..partition.start + partition.length)
            .step_by(usize::try_from(step).map_err(io::Error::other)?)
        {
            let mut byte = [0];
            disk.seek(SeekFrom::Start(offset))?;
            disk.read_exact(&mut byte)?;
            disk.seek(SeekFrom::Start(offset))?;
            disk.write_all(&[!byte[0]])?;
        }
        Ok(())
    }

    /// What a partition holds.
    pub fn read(&self, partition: Partition) -> io::Result<Vec<u8>> {
        let mut disk = fs::File::open(self.disk())?;
        disk.seek(SeekFrom::Start(partition.start))?;
        let mut bytes = vec![0; usize::try_from(partition.length).map_err(io::Error::other)?];
        disk.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Puts `bytes` on a partition.
    pub fn write(&self, partition: Partition, bytes: &[u8]) -> io::Result<()> {
        let mut disk = fs::OpenOptions::new().write(true).open(self.disk())?;
        disk.seek(SeekFrom::Start(partition.start))?;
        disk.write_all(bytes)
    }

    /// What was written to the disk while it was last powered on with [`Power::log_writes`].
    pub fn write_log(&self) -> io::Result<WriteLog> {
        WriteLog::read(&self.writes())
    }

    /// Takes the signature off the kernel on the EFI system partition.
    pub fn unsign_kernel(&self) -> io::Result<()> {
        let esp = format!("{}@@{}", self.disk().display(), self.partition("ironroot-esp")?.start);
        let (place, kernel) = (self.architecture.kernel(), self.file("kernel.efi"));
        run(Command::new("mcopy").args(["-n", "-i", &esp, place]).arg(&kernel))?;
        run(Command::new("sbattach").arg("--remove").arg(&kernel))?;
        run(Command::new("mcopy").args(["-D", "o", "-o", "-i", &esp]).arg(&kernel).arg(place))?;
        Ok(())
    }

    /// The disk, raw.
    pub fn disk(&self) -> PathBuf {
        self.file("disk.raw")
    }

    /// The directory of the chip's persistent state.
    pub fn chip(&self) -> PathBuf {
        self.file("chip")
    }

    /// A file that belongs to this board.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn variables(&self) -> PathBuf {
        self.file("firmware-variables.fd")
    }

    pub(super) fn writes(&self) -> PathBuf {
        self.file("writes.log")
    }

    /// Where the next boot's console goes.
    pub(super) fn next_console(&self) -> PathBuf {
        self.consoles.set(self.consoles.get() + 1);
        self.file(&format!("console-{}.log", self.consoles.get()))
    }

    /// What kind of machine it is.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    fn empty(architecture: Architecture) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("ironroot-board-").tempdir()?;
        Ok(Self { architecture, directory, consoles: Cell::new(0) })
    }
}

/// How `scripts/image` calls the disk.
fn image_name(architecture: Architecture) -> String {
    format!("ironroot-{}.img", architecture.name())
}

/// With holes where there are some.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    run(Command::new("cp").arg("--sparse=always").arg(from).arg(to)).map(drop)
}

/// Standard output, or an error with everything that was said.
fn run(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| io::Error::other(format!("{command:?}: {error} (scripts/setup --image)")))?;
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(io::Error::other(format!("{command:?}: {}\n{said}{wrong}", output.status)));
    }
    Ok(said.into_owned())
}
