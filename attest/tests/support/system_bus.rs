//! A system bus of the test's own, with a systemd that says what it is told to say.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ironroot_attest::workload::SystemBus;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use zbus::{Connection, Fd, OwnedObjectPath, fdo, interface};

const PATIENCE: Duration = Duration::from_secs(30);

/// Which systemd is on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// None at all.
    None,
    /// Knows processes by number only.
    V252,
    /// Knows them by descriptor too.
    V253,
    /// Takes questions and never answers.
    Hangs,
}

/// Units by process.
type Units = Arc<Mutex<HashMap<i32, String>>>;
/// What was asked.
type Asked = Arc<Mutex<Vec<&'static str>>>;

/// A bus and its daemon, which ends with it.
pub struct Bus {
    directory: TempDir,
    daemon: Child,
    runtime: Runtime,
    systemd: Option<Connection>,
    units: Units,
    asked: Asked,
}

impl Bus {
    pub fn start(version: Version) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let address = address(directory.path());
        // As systemd 252's own policy for those who are not root: what it does not list is refused by the bus.
        let listed = match version {
            Version::V252 => {
                "<deny send_destination=\"org.freedesktop.systemd1\"/>\
                 <allow send_destination=\"org.freedesktop.systemd1\" send_interface=\"org.freedesktop.systemd1.Manager\" send_member=\"GetUnitByPID\"/>\
                 <allow send_destination=\"org.freedesktop.systemd1\" \
                 send_interface=\"org.freedesktop.DBus.Properties\" send_member=\"Get\"/>"
            }
            Version::None | Version::V253 | Version::Hangs => "",
        };
        let config = format!(
            "<busconfig><type>system</type><listen>{address}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow send_destination=\"*\"/><allow receive_sender=\"*\"/><allow own=\"*\"/>{listed}</policy></busconfig>"
        );
        let file = directory.path().join("bus.conf");
        fs::write(&file, config).expect("writes");
        let mut daemon = Command::new("dbus-daemon");
        daemon.arg("--nofork").arg("--config-file").arg(&file).stdin(Stdio::null());
        let daemon = daemon.spawn().expect("dbus-daemon is installed (scripts/setup --tests)");
        let runtime = Runtime::new().expect("a runtime");
        let (units, asked) = (Units::default(), Asked::default());
        let served = async { tokio::time::timeout(PATIENCE, systemd(&address, version, &units, &asked)).await };
        let systemd = runtime.block_on(served).expect("served in time");
        Self { directory, daemon, runtime, systemd, units, asked }
    }

    pub fn address(&self) -> SystemBus {
        address(self.directory.path()).parse().expect("legal")
    }

    /// From now on the process `pid` is of `unit`, which was read from `file`.
    pub fn systemd_knows(&self, pid: i32, unit: &str, file: &str) {
        self.units.lock().expect("whole").insert(pid, unit.to_owned());
        let object = Unit { id: unit.to_owned(), file: file.to_owned(), asked: self.asked.clone() };
        let systemd = self.systemd.as_ref().expect("there is one");
        let served = systemd.object_server().at(path_of(unit), object);
        self.runtime.block_on(served).expect("serves");
    }

    /// What systemd was asked since this was last called.
    pub fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.asked.lock().expect("whole"))
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = (self.daemon.kill(), self.daemon.wait());
    }
}

fn address(directory: &Path) -> String {
    format!("unix:path={}", directory.join("socket").display())
}

/// Where systemd puts a unit. Source: org.freedesktop.systemd1(5).
fn path_of(unit: &str) -> OwnedObjectPath {
    let escaped: String = unit
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).into() } else { format!("_{b:02x}") })
        .collect();
    OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/unit/{escaped}")).expect("legal")
}

/// Connected once the daemon listens, under systemd's name unless there is to be none.
async fn systemd(address: &str, version: Version, units: &Units, asked: &Asked) -> Option<Connection> {
    let connection = loop {
        match zbus::connection::Builder::address(address).build().await {
            Ok(connection) => break connection,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let (units, asked) = (units.clone(), asked.clone());
    let server = connection.object_server();
    let manager = "/org/freedesktop/systemd1";
    match version {
        Version::None => return None,
        Version::V252 => server.at(manager, OldManager { units, asked }).await.map(drop),
        Version::V253 => server.at(manager, Manager { units, asked }).await.map(drop),
        Version::Hangs => server.at(manager, StuckManager).await.map(drop),
    }
    .expect("serves");
    connection.request_name("org.freedesktop.systemd1").await.expect("the name");
    Some(connection)
}

/// What systemd calls a process in no unit.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum Fault {
    #[zbus(error)]
    Bus(zbus::Error),
    NoUnitForPID(String),
}

fn unit_of(units: &Units, pid: i32) -> Result<String, Fault> {
    let known = units.lock().expect("whole").get(&pid).cloned();
    known.ok_or_else(|| Fault::NoUnitForPID(format!("PID {pid} does not belong to any loaded unit")))
}

struct Manager {
    units: Units,
    asked: Asked,
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    #[zbus(name = "GetUnitByPIDFD")]
    async fn by_pidfd(&self, pidfd: Fd<'_>) -> Result<(OwnedObjectPath, String, Vec<u8>), Fault> {
        self.asked.lock().expect("whole").push("GetUnitByPIDFD");
        let unit = unit_of(&self.units, pid_behind(&pidfd))?;
        Ok((path_of(&unit), unit, vec![7; 16]))
    }
}

/// The process that a pidfd holds. Source: pidfd_open(2), fdinfo.
fn pid_behind(pidfd: &Fd<'_>) -> i32 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).expect("open");
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a pidfd");
    pid.trim().parse().expect("a number")
}

struct OldManager {
    units: Units,
    asked: Asked,
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl OldManager {
    #[zbus(name = "GetUnitByPID")]
    async fn by_pid(&self, pid: u32) -> Result<OwnedObjectPath, Fault> {
        self.asked.lock().expect("whole").push("GetUnitByPID");
        unit_of(&self.units, pid as i32).map(|unit| path_of(&unit))
    }
}

struct StuckManager;

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl StuckManager {
    #[zbus(name = "GetUnitByPIDFD")]
    async fn by_pidfd(&self, _pidfd: Fd<'_>) -> fdo::Result<(OwnedObjectPath, String, Vec<u8>)> {
        std::future::pending().await
    }
}

struct Unit {
    id: String,
    file: String,
    asked: Asked,
}

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property, name = "Id")]
    async fn id(&self) -> String {
        self.asked.lock().expect("whole").push("Id");
        self.id.clone()
    }

    #[zbus(property, name = "FragmentPath")]
    async fn fragment_path(&self) -> String {
        self.asked.lock().expect("whole").push("FragmentPath");
        self.file.clone()
    }
}
