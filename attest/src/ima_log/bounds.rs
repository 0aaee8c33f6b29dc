//! How much of a list is accepted at once.

/// Longest part of a list accepted, bytes: some 500 entries.
pub const MAX_PART_BYTES: usize = 48 * 1024;
/// Longest fields of one entry accepted, bytes: a path of 4096, a signature, two digests.
pub const MAX_TEMPLATE_BYTES: usize = 16 * 1024;
/// Most entries of one part.
pub const MAX_ENTRIES: usize = 4096;
