//! How much of a list is accepted.

/// Most entries of a list: servers that run for a year with every file measured have some ten thousands.
pub const MAX_ENTRIES: u64 = 128 * 1024;
/// Longest part of a list that travels at once, bytes. A list of 100,000 entries takes some 11 MB.
pub const MAX_PART_BYTES: usize = 192 * 1024;
/// Most parts of one attestation: with full ones 36 MiB, more than [`MAX_ENTRIES`] of the usual length take.
pub const MAX_PARTS: usize = 192;
/// Longest data of an entry, bytes. Files take 70 to 600 (with a signature); buffers (`ima-buf`), such as a policy or a kernel's command
/// line, some thousands.
pub const MAX_DATA_BYTES: usize = 64 * 1024;
/// Longest name of a template, bytes (`MAX_TEMPLATE_NAME_LEN` in the kernel).
pub const MAX_TEMPLATE_NAME_BYTES: usize = 255;
/// Characters of a file's name that are kept; the end is what tells files apart.
pub const MAX_NAME_CHARS: usize = 256;
