//! The firmware's log of what it measured before the kernel started (TCG2, crypto-agile, or the older form with SHA-1 alone).
//!
//! The log comes from the device and proves nothing by itself. Extended again, event by event, it must give the registers
//! that the chip quoted; then, and for those registers alone, it says what made them. Even then only *digests* and their
//! order are proven. An event's type and data are the device's word: whoever controls it can write other ones beside a true
//! digest, and append events for what it extends itself. So [`SecureBoot`] reads nothing but events whose data has the
//! digest, and refuses whatever it does not know.
//!
//! ```text
//!  bytes ─ parse (bounded) ─► EventLog ─ verify(bank, quoted registers) ─► VerifiedLog ─► SecureBoot, command line
//! ```
//! Source: TCG PC Client Platform Firmware Profile 1.05, §10 "Event Logging".

mod boot_services;
mod bounds;
mod efi_variable;
mod error;
mod event;
mod header;
mod kind;
mod reader;
mod replay;
mod secure_boot;
mod told;
mod verified;

pub use bounds::{MAX_EVENT_BYTES, MAX_EVENTS, MAX_LOG_BYTES};
pub use error::EventLogError;
pub use event::Event;
pub use secure_boot::{SecureBoot, SecureBootError, SecureBootVariable};
pub use told::MAX_COMMAND_LINE_CHARS;
pub use verified::VerifiedLog;

use header::Header;
use reader::Reader;

/// A log that has the form of one. What it says is not believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLog {
    header: Header,
    events: Vec<Event>,
}

impl EventLog {
    /// Parses a whole log, as the kernel gives it (`binary_bios_measurements`).
    pub fn parse(bytes: &[u8]) -> Result<Self, EventLogError> {
        //= TPM-31 TCG PC Client Platform Firmware Profile: "bounded before it is parsed"
        if bytes.len() > MAX_LOG_BYTES {
            return Err(EventLogError::TooLong { bytes: bytes.len() });
        }
        let mut reader = Reader::new(bytes);
        let first = Event::read_legacy(&mut reader)?;
        let header = Header::of(first.kind, &first.data)?;
        let mut events = Vec::new();
        if header.is_legacy() {
            events.push(first);
        }
        while !reader.is_at_end() {
            if events.len() == MAX_EVENTS {
                return Err(EventLogError::TooManyEvents);
            }
            reader.begin_event();
            events.push(if header.is_legacy() {
                Event::read_legacy(&mut reader)?
            } else {
                Event::read(&mut reader, &header)?
            });
        }
        Ok(Self { header, events })
    }

    /// The events, in the order they were measured; without the header.
    pub fn events(&self) -> &[Event] {
        &self.events
    }
}
