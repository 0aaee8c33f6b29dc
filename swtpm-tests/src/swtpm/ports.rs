//! Two neighbouring TCP ports that stay ours over a power cycle.
//!
//! Not from the kernel's ephemeral range: while a chip is off, an outgoing connection or another test could be given its
//! port. So a pair is looked for below that range, tried by binding, and reserved by a locked file, which the kernel
//! unlocks when we die. The control port is the data port's neighbour because the TSS library and tpm2-tools look there.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::Uid;

/// First port tried; even.
const FIRST: u16 = 20_000;
/// Pairs tried; the last one ends below 32768, where Linux' ephemeral ports begin.
const PAIRS: u16 = 6_000;

/// A reserved pair.
#[derive(Debug)]
pub struct Ports {
    data: u16,
    _reservation: File,
}

impl Ports {
    /// Finds a free pair.
    pub fn reserve() -> io::Result<Ports> {
        // Where to begin: spread by process and by call, so that parallel tests rarely meet.
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let spread = std::process::id().wrapping_mul(97).wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed) * 7);
        let directory = std::env::temp_dir().join(format!("ironroot-lab-ports-{}", Uid::current()));
        fs::create_dir_all(&directory)?;
        for step in 0..u32::from(PAIRS) {
            let pair = u16::try_from((spread.wrapping_add(step)) % u32::from(PAIRS)).expect("less than PAIRS");
            let data = FIRST + 2 * pair;
            let reservation = File::options().create(true).append(true).open(directory.join(data.to_string()))?;
            if reservation.try_lock().is_ok() && is_free(data) && is_free(data + 1) {
                return Ok(Ports { data, _reservation: reservation });
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no two neighbouring TCP ports are free"))
    }

    /// Where commands go.
    pub fn data(&self) -> u16 {
        self.data
    }

    /// Where swtpm_ioctl talks to.
    pub fn control(&self) -> u16 {
        self.data + 1
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
