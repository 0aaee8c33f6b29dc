//! What a log tells beside what it proves: the kernel's command line.
//!
//! The text has the digest that was extended, so it was measured. That it *is* the command line is the device's word, since an
//! event's type and the words before a text are not measured: whoever has the device could say it of another text. So it is
//! shown to people beside the registers, whose values are what a policy compares.

use super::Event;
use super::efi_variable::utf16;
use super::kind;
use crate::node::tpm2::PcrHash;

/// Longest command line kept, characters; the rest is left out. The kernel takes 2048 on most machines.
pub const MAX_COMMAND_LINE_CHARS: usize = 1024;

/// What GRUB writes before the text, which it does not measure.
const GRUB_PREFIX: &[u8] = b"kernel_cmdline: ";

/// The first of these events that is a command line: GRUB's of PCR 8, systemd-stub's of PCR 12.
pub(super) fn command_line<'a>(events: impl Iterator<Item = &'a Event>, bank: PcrHash) -> Option<String> {
    let line = events
        .filter(|event| event.kind == kind::IPL)
        .find_map(|event| grub(event, bank).or_else(|| stub(event, bank)))?;
    let printable = line.chars().map(|c| if c.is_control() { ' ' } else { c });
    Some(printable.take(MAX_COMMAND_LINE_CHARS).collect())
}

fn grub(event: &Event, bank: PcrHash) -> Option<String> {
    let text = event.data.strip_prefix(GRUB_PREFIX)?;
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    let is_measured = event.digest(bank) == Some(bank.digest(&[text]).as_ref());
    is_measured.then(|| String::from_utf8_lossy(text).into_owned())
}

fn stub(event: &Event, bank: PcrHash) -> Option<String> {
    utf16(&event.data).filter(|text| event.has_its_digest(bank) && !text.is_empty())
}
