//! Somebody on the bus between a chip and its user: reads every byte, and may change or delay what the chip is asked and answers.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use ironroot_attest::tpm::TpmAddress;

use crate::swtpm::{Ports, Swtpm};

/// Given the command code and the response, header included.
type Tamper = Box<dyn FnMut(u32, &mut Vec<u8>) + Send>;

/// An interposer in front of one chip. Its threads end with the process: a lab is short-lived.
pub struct Interposer {
    ports: Ports,
    bus: Arc<Bus>,
}

/// What he hears and does.
struct Bus {
    seen: Mutex<Vec<u8>>,
    commands: Mutex<Tamper>,
    responses: Mutex<Tamper>,
}

impl fmt::Debug for Interposer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interposer").field("ports", &self.ports).finish_non_exhaustive()
    }
}

impl Interposer {
    /// Places itself before `chip`.
    pub fn before(chip: &Swtpm) -> io::Result<Interposer> {
        let ports = Ports::reserve()?;
        let bus = Arc::new(Bus { seen: Mutex::default(), commands: nothing(), responses: nothing() });
        let relayed = Arc::clone(&bus);
        forward(ports.data(), chip.data_port(), move |client, chip| relay(client, chip, &relayed))?;
        // The library opens the control port too, and says nothing there.
        forward(ports.control(), chip.data_port() + 1, pass_through)?;
        Ok(Interposer { ports, bus })
    }

    /// Where its victim looks for the chip.
    pub fn address(&self) -> TpmAddress {
        TpmAddress::Swtpm { host: [127, 0, 0, 1].into(), port: self.ports.data() }
    }

    /// From now on every response goes through `with`, which gets the command code and the whole response. To be slow,
    /// sleep in it.
    pub fn tamper(&self, with: impl FnMut(u32, &mut Vec<u8>) + Send + 'static) {
        *lock(&self.bus.responses) = Box::new(with);
    }

    /// The same of every command, before the chip gets it.
    pub fn tamper_with_commands(&self, with: impl FnMut(u32, &mut Vec<u8>) + Send + 'static) {
        *lock(&self.bus.commands) = Box::new(with);
    }

    /// Whether these bytes crossed the bus, in either direction.
    pub fn has_seen(&self, bytes: &[u8]) -> bool {
        let seen = lock(&self.bus.seen);
        seen.windows(bytes.len()).any(|window| window == bytes)
    }
}

/// Accepts at `from` and serves each connection to `to` on a thread of its own.
fn forward(
    from: u16,
    to: u16,
    serve: impl Fn(TcpStream, TcpStream) -> io::Result<()> + Clone + Send + 'static,
) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", from))?;
    thread::spawn(move || {
        for client in listener.incoming() {
            let serve = serve.clone();
            thread::spawn(move || {
                // Either side may hang up at any time; the other side then sees it.
                let _ = client.and_then(|client| serve(client, TcpStream::connect(("127.0.0.1", to))?));
            });
        }
    });
    Ok(())
}

fn nothing() -> Mutex<Tamper> {
    Mutex::new(Box::new(|_, _| ()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn relay(mut client: TcpStream, mut chip: TcpStream, bus: &Bus) -> io::Result<()> {
    loop {
        let mut command = message(&mut client)?;
        let code = u32::from_be_bytes([command[6], command[7], command[8], command[9]]);
        lock(&bus.commands)(code, &mut command);
        chip.write_all(&command)?;
        let mut response = message(&mut chip)?;
        {
            let mut seen = lock(&bus.seen);
            seen.extend(&command);
            seen.extend(&response);
        }
        lock(&bus.responses)(code, &mut response);
        client.write_all(&response)?;
    }
}

/// One command or response: tag, total length, code, the rest.
fn message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut header = [0; 10];
    stream.read_exact(&mut header)?;
    let length = u32::from_be_bytes([header[2], header[3], header[4], header[5]]) as usize;
    let mut message = header.to_vec();
    message.resize(length.max(header.len()), 0);
    stream.read_exact(&mut message[header.len()..])?;
    Ok(message)
}

fn pass_through(client: TcpStream, chip: TcpStream) -> io::Result<()> {
    let (mut from_client, mut to_chip) = (client.try_clone()?, chip.try_clone()?);
    thread::spawn(move || {
        // When the client hangs up, the chip must hear of it: it serves one connection at a time.
        let _ = io::copy(&mut from_client, &mut to_chip);
        let _ = to_chip.shutdown(Shutdown::Both);
    });
    let (mut from_chip, mut to_client) = (chip, client);
    io::copy(&mut from_chip, &mut to_client)?;
    to_client.shutdown(Shutdown::Both)
}
