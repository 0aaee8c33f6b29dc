//! How much of a log is accepted.

/// Longest log accepted, bytes. Real ones take 1 to 75 kB; certificates and the lists of forbidden ones are most of it.
pub const MAX_LOG_BYTES: usize = 160 * 1024;
/// Longest data of one event, bytes. The list of forbidden signatures (dbx) takes 20 kB today.
pub const MAX_EVENT_BYTES: usize = 128 * 1024;
/// Most events accepted. Real logs have 20 to 150; GRUB writes one for each command.
pub const MAX_EVENTS: usize = 2048;
/// Most digests of an event: hashes that a header can name.
pub(super) const MAX_DIGESTS: usize = 8;
/// PCRs that a log may name: those of the PC Client profile.
pub(super) const PCRS: u32 = 24;
