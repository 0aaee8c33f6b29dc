//! TCP ports for programs that are told theirs before they listen: leased to this process by a locked file, which the kernel unlocks
//! when we die, and below the range from which the kernel takes ports for outgoing connections. So neither another program of tests,
//! which runs beside this one, nor somebody's connection sits on a port between its choice and its use, or while a daemon is down.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::unistd::Uid;

/// Ports for single listeners. Above them, up to 32768, where Linux' ephemeral ports begin, are those of chips, in pairs.
const PORTS: Range<u16> = 12_000..20_000;

/// The leases of [`free_port`], which last as long as this process.
static LEASES: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A TCP port on which nobody listens, and which no other process that asks here is given while this one lives.
///
/// # Panics
/// If all are leased or taken, or nothing can be written where temporary files are.
pub fn free_port() -> u16 {
    for port in spread(PORTS, 1) {
        if let Some(lease) = lease(port).expect("a file for the port's lease")
            && is_free(port)
        {
            LEASES.lock().unwrap_or_else(PoisonError::into_inner).push(lease);
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

/// Every `step`th of these ports, beginning at another one for each process and call, so that parallel tests rarely meet.
pub fn spread(ports: Range<u16>, step: u16) -> impl Iterator<Item = u16> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let count = u32::from((ports.end - ports.start) / step);
    let begin = std::process::id().wrapping_mul(97).wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed).wrapping_mul(7));
    (0..count).map(move |tried| {
        let chosen = u16::try_from(begin.wrapping_add(tried) % count).expect("less than the count");
        ports.start + step * chosen
    })
}

/// The lease of a port until the file is closed; `None` if another process, or another place in this one, has it.
///
/// # Errors
/// If the file cannot be made.
pub fn lease(port: u16) -> io::Result<Option<File>> {
    // For each user a directory of his own, since its files are written.
    let directory = std::env::temp_dir().join(format!("ironroot-lab-ports-{}", Uid::current()));
    fs::create_dir_all(&directory)?;
    let file = File::options().create(true).append(true).open(directory.join(port.to_string()))?;
    Ok(file.try_lock().is_ok().then_some(file))
}

/// Whether nobody listens there.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leased_port_is_given_to_nobody_else_and_can_be_listened_on() {
        let first = free_port();
        let more: Vec<u16> = (0..50).map(|_| free_port()).collect();
        assert!(!more.contains(&first) && PORTS.contains(&first) && is_free(first));
        assert!(lease(first).expect("asked").is_none(), "another one would be given it");
    }

    #[test]
    fn every_port_is_looked_at_once() {
        let mut seen: Vec<u16> = spread(20..32, 2).collect();
        seen.sort_unstable();
        assert_eq!(seen, [20, 22, 24, 26, 28, 30]);
    }
}
