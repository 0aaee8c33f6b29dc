//! What PID 1 says of a process.
//!
//! Source: org.freedesktop.systemd1(5): Manager.GetUnitByPIDFD (systemd 253) and GetUnitByPID, Unit.Id, Unit.FragmentPath.

use std::time::Instant;

use zbus::{Fd, OwnedObjectPath, OwnedVariant};

use super::bus::{BusError, Connection, Method, SystemBus};
use crate::workload::demand::UnitDemand;
use crate::workload::peer::Peer;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "/org/freedesktop/systemd1";
const NO_UNIT: &str = "org.freedesktop.systemd1.NoUnitForPID";
/// How a systemd before 253 says that it knows no processes by descriptor: itself, to root; to others the bus says it for systemd,
/// whose policy lists the methods that anybody may call.
const UNKNOWN: [&str; 2] = ["org.freedesktop.DBus.Error.UnknownMethod", "org.freedesktop.DBus.Error.AccessDenied"];

/// A unit that systemd knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Its primary name.
    pub id: String,
    /// The file it was read from, if that was asked for; empty for a unit without one.
    pub file: Option<String>,
}

/// The unit of `peer`, which must be alive afterwards; `None`: it is in none.
pub(super) fn unit_of(
    bus: &SystemBus,
    peer: &Peer,
    wanted: UnitDemand,
    deadline: Instant,
) -> Result<Option<Unit>, BusError> {
    let mut bus = Connection::open(bus, deadline)?;
    let (path, id) = match find(&mut bus, peer) {
        Err(BusError::Refused { name }) if name == NO_UNIT => return Ok(None),
        found => found?,
    };
    let file = match wanted {
        UnitDemand::File => Some(property(&mut bus, &path, "FragmentPath")?),
        UnitDemand::Nothing | UnitDemand::Id => None,
    };
    Ok(Some(Unit { id, file }))
}

/// A unit's object and name.
fn find(bus: &mut Connection, peer: &Peer) -> Result<(OwnedObjectPath, String), BusError> {
    if let Some(pidfd) = peer.exit_event() {
        let answer = bus.call(&manager("GetUnitByPIDFD"), &(Fd::from(&pidfd),));
        match answer.and_then(|body| body.read::<(OwnedObjectPath, String, Vec<u8>)>()) {
            Err(BusError::Refused { name }) if UNKNOWN.contains(&name.as_str()) => {}
            found => return found.map(|(path, id, _invocation)| (path, id)),
        }
    }
    // systemd before 253, or a kernel without SO_PEERPIDFD: the PID is the peer's own as long as it lives.
    let pid = peer.pid().unsigned_abs();
    let (path,) = bus.call(&manager("GetUnitByPID"), &(pid,))?.read::<(OwnedObjectPath,)>()?;
    let id = property(bus, &path, "Id")?;
    Ok((path, id))
}

fn manager(member: &'static str) -> Method<'static> {
    Method { service: SYSTEMD, path: MANAGER, interface: "org.freedesktop.systemd1.Manager", member }
}

fn property(bus: &mut Connection, unit: &OwnedObjectPath, name: &str) -> Result<String, BusError> {
    let get =
        Method { service: SYSTEMD, path: unit.as_str(), interface: "org.freedesktop.DBus.Properties", member: "Get" };
    let (value,) = bus.call(&get, &("org.freedesktop.systemd1.Unit", name))?.read::<(OwnedVariant,)>()?;
    String::try_from(value).map_err(BusError::Malformed)
}
