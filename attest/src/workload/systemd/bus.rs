//! Questions to the system bus: one connection for the questions about one process, all of it within a deadline.
//!
//! What other users of the bus may send us is thrown away unread beyond its header, and descriptors with it. Blocking: an
//! attestation has a thread of its own anyway. The format is zbus's; its connections would be another 330 kB of a device's
//! program, for one question.

mod error;
mod message;

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use ironroot_text::hex::hex;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use nix::unistd::geteuid;
use serde::Serialize;
use thiserror::Error;
use zbus::Type;

pub use error::BusError;
pub(super) use message::Method;
use message::{Body, FIXED_BYTES, Reply};

/// Where the system bus is. Source: D-Bus specification, "System message bus"; file-hierarchy(7).
const DEFAULT_PATH: &str = "/run/dbus/system_bus_socket";
/// Another place, as for every client of the bus. Source: D-Bus specification, "System message bus".
const ADDRESS_VARIABLE: &str = "DBUS_SYSTEM_BUS_ADDRESS";
/// Longest message looked at, bytes: a path and a name, several times over.
const MAX_MESSAGE_BYTES: u64 = 32 << 10;
/// Longest line of the greeting, bytes: "OK" and 32 hexadecimal digits, or the ways to authenticate that there are.
const MAX_LINE_BYTES: usize = 512;

/// The socket of the system bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemBus(PathBuf);

/// The environment names another kind of bus than a socket.
#[derive(Debug, Error)]
#[error("{ADDRESS_VARIABLE} is {0:?}: give one address of the form unix:path=/run/dbus/system_bus_socket, or none")]
pub struct BusAddressError(String);

impl SystemBus {
    /// Where the environment says that it is, else its usual place.
    pub fn of_environment() -> Result<Self, BusAddressError> {
        match std::env::var_os(ADDRESS_VARIABLE) {
            Some(address) if !address.is_empty() => address.to_string_lossy().parse(),
            _ => Ok(Self::default()),
        }
    }
}

impl Default for SystemBus {
    fn default() -> Self {
        Self(DEFAULT_PATH.into())
    }
}

impl FromStr for SystemBus {
    type Err = BusAddressError;

    /// `unix:path=/absolute/path`, without escapes; what follows the path is for other clients.
    fn from_str(address: &str) -> Result<Self, Self::Err> {
        let path = address.strip_prefix("unix:path=").and_then(|rest| rest.split(',').next());
        let path = path.filter(|path| path.starts_with('/') && !path.contains(['%', ';']));
        path.map(|path| Self(path.into())).ok_or_else(|| BusAddressError(address.chars().take(256).collect()))
    }
}

impl AsRef<Path> for SystemBus {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    deadline: Instant,
    last_serial: u32,
}

impl Connection {
    /// Connects, as the user that we are. Everything that is asked must be answered by `deadline`.
    pub fn open(bus: &SystemBus, deadline: Instant) -> Result<Self, BusError> {
        let path = bus.as_ref();
        let failed = |source: io::Error| BusError::Connect { path: path.to_owned(), source };
        let stream = connected(path).map_err(|errno| failed(errno.into()))?;
        stream.set_nonblocking(false).map_err(failed)?;
        //= FLT-A21 agent faults: "after a deadline what it would have said is left out"
        let mut this = Self { stream, deadline, last_serial: 0 };
        this.greet()?;
        this.call(&message::HELLO, &())?;
        Ok(this)
    }

    /// Source: D-Bus specification, "Authentication protocol", EXTERNAL.
    fn greet(&mut self) -> Result<(), BusError> {
        let uid = hex(&geteuid().to_string());
        self.send(format!("\0AUTH EXTERNAL {uid}\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n").as_bytes(), &[])?;
        for expected in ["OK ", "AGREE_UNIX_FD"] {
            let line = self.line()?;
            if !line.starts_with(expected) {
                return Err(BusError::Greeting(line));
            }
        }
        Ok(())
    }

    /// Asks and waits for the answer.
    pub fn call<B: Serialize + Type>(&mut self, method: &Method<'_>, body: &B) -> Result<Body, BusError> {
        self.last_serial += 1;
        let question = message::encode(self.last_serial, method, body).map_err(BusError::Malformed)?;
        let descriptors: Vec<_> = question.descriptors.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
        self.send(&question.bytes, &descriptors)?;
        loop {
            match self.message()?.map(|bytes| message::answer_to(self.last_serial, bytes)) {
                Some(Reply::Answer(body)) => return Ok(body),
                Some(Reply::Error(name)) => return Err(BusError::Refused { name }),
                Some(Reply::Unreadable(error)) => return Err(BusError::Malformed(error)),
                // A signal, or somebody's message that is not for us.
                Some(Reply::Other) | None => {}
            }
        }
    }

    /// The next message; `None` if it was too long to be an answer.
    fn message(&mut self) -> Result<Option<Vec<u8>>, BusError> {
        let mut fixed = [0; FIXED_BYTES];
        self.fill(&mut fixed)?;
        let rest = message::rest_bytes(&fixed).map_err(BusError::Malformed)?;
        if rest > MAX_MESSAGE_BYTES {
            self.discard(rest)?;
            return Ok(None);
        }
        let mut bytes = fixed.to_vec();
        bytes.resize(FIXED_BYTES + usize::try_from(rest).expect("MAX_MESSAGE_BYTES"), 0);
        self.fill(&mut bytes[FIXED_BYTES..])?;
        Ok(Some(bytes))
    }

    fn discard(&mut self, mut bytes: u64) -> Result<(), BusError> {
        let mut chunk = [0; 4096];
        while bytes > 0 {
            let most = usize::try_from(bytes).unwrap_or(usize::MAX).min(chunk.len());
            bytes -= self.some(&mut chunk[..most])? as u64;
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String, BusError> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < MAX_LINE_BYTES {
            let mut byte = [0];
            self.fill(&mut byte)?;
            line.extend(byte);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn fill(&mut self, mut room: &mut [u8]) -> Result<(), BusError> {
        while !room.is_empty() {
            let n = self.some(room)?;
            room = &mut room[n..];
        }
        Ok(())
    }

    /// Reads what there is, at least a byte, or fails at the deadline. Descriptors that come along are closed by the kernel.
    fn some(&mut self, room: &mut [u8]) -> Result<usize, BusError> {
        let left = self.time_left()?;
        self.stream.set_read_timeout(Some(left)).map_err(BusError::Broken)?;
        match self.stream.read(room) {
            Ok(0) => Err(BusError::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => Ok(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(io_error(error)),
        }
    }

    /// Sends all of `bytes`, which fit into a socket's buffer many times over, and descriptors with them.
    fn send(&mut self, bytes: &[u8], descriptors: &[i32]) -> Result<(), BusError> {
        let left = self.time_left()?;
        self.stream.set_write_timeout(Some(left)).map_err(BusError::Broken)?;
        let along = [ControlMessage::ScmRights(descriptors)];
        let along = if descriptors.is_empty() { &[][..] } else { &along };
        let (socket, bytes) = (self.stream.as_raw_fd(), [io::IoSlice::new(bytes)]);
        let sent = sendmsg::<UnixAddr>(socket, &bytes, along, MsgFlags::MSG_NOSIGNAL, None);
        match sent.map_err(|errno| io_error(errno.into()))? {
            n if n == bytes[0].len() => Ok(()),
            _ => Err(BusError::TimedOut),
        }
    }

    fn time_left(&self) -> Result<Duration, BusError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(BusError::TimedOut) } else { Ok(left) }
    }
}

/// Does not wait for a bus that takes no connections.
fn connected(path: &Path) -> nix::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket.into())
}

fn io_error(error: io::Error) -> BusError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => BusError::TimedOut,
        _ => BusError::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    const GREETING: &[u8] = b"OK 0123456789abcdef0123456789abcdef\r\nAGREE_UNIX_FD\r\n";
    const PATIENCE: Duration = Duration::from_secs(30);

    /// What is told of a bus that says these bytes, to whoever connects, and then nothing.
    fn open(says: Vec<u8>, within: Duration) -> Result<Connection, BusError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("bus");
        let listener = UnixListener::bind(&path).expect("binds");
        let bus = thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("accepts");
            // Whoever gives up before the end has heard enough.
            let _ = client.write_all(&says);
            client
        });
        let opened = Connection::open(&SystemBus(path), Instant::now() + within);
        drop(bus.join().expect("has spoken"));
        opened
    }

    #[test]
    fn a_bus_that_greets_and_names_us_is_open() {
        assert!(open([GREETING, &message::tests::welcome()].concat(), PATIENCE).is_ok());
    }

    #[test]
    fn what_is_too_long_for_an_answer_or_not_for_us_is_passed_over() {
        let long = [b'l', 4, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(std::iter::repeat_n(7, 65536));
        let says =
            [GREETING, &long.collect::<Vec<u8>>(), &message::tests::signal(), &message::tests::welcome()].concat();
        assert!(open(says, PATIENCE).is_ok());
    }

    //= FLT-A21
    #[test]
    fn each_way_of_not_answering_ends_by_the_deadline() {
        let soon = Duration::from_millis(50);
        for (says, within, expected) in [
            (&b"REJECTED EXTERNAL\r\n"[..], PATIENCE, "the system bus answered \"REJECTED EXTERNAL\" to the greeting"),
            (&[b'x'; MAX_LINE_BYTES * 2], PATIENCE, "the system bus answered"),
            (b"OK 01\r\nERROR\r\n", PATIENCE, "the system bus answered \"ERROR\""),
            (b"", soon, "the answer did not come in time"),
            (GREETING, soon, "the answer did not come in time"),
            (&[GREETING, &[b'x'; 16]].concat(), PATIENCE, "the answer cannot be read"),
            (&[GREETING, &message::tests::welcome()[..20]].concat(), soon, "the answer did not come in time"),
            (&[GREETING, &message::tests::signal()].concat(), soon, "the answer did not come in time"),
        ] {
            let error = open(says.to_vec(), within).expect_err("no bus").to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_bus_is_named_by_the_path_of_its_socket() {
        for (text, path) in [
            ("unix:path=/run/dbus/system_bus_socket", Some("/run/dbus/system_bus_socket")),
            ("unix:path=/a,guid=00", Some("/a")),
            ("unix:path=relative", None),
            ("unix:path=/a%20b", None),
            ("unix:path=/a;unix:path=/b", None),
            ("unix:abstract=/a", None),
            ("tcp:host=localhost", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), path.map(|path| SystemBus(path.into())), "{text}");
        }
    }
}
