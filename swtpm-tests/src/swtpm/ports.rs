//! Two neighbouring TCP ports that stay ours over a power cycle ([`ironroot_postgres_cluster::ports`] says by what). The control
//! port is the data port's neighbour because the TSS library and tpm2-tools look there.

use std::fs::File;
use std::io;
use std::ops::Range;

use ironroot_postgres_cluster::ports::{is_free, lease, spread};

/// The data ports tried are the even ones; the last pair ends below 32768, where Linux' ephemeral ports begin.
const PORTS: Range<u16> = 20_000..32_000;

/// A reserved pair.
#[derive(Debug)]
pub struct Ports {
    data: u16,
    _reservation: File,
}

impl Ports {
    /// Finds a free pair.
    pub fn reserve() -> io::Result<Ports> {
        for data in spread(PORTS, 2) {
            if let Some(reservation) = lease(data)?
                && is_free(data)
                && is_free(data + 1)
            {
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
