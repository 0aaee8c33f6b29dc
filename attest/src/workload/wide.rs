//! What the kernel tells of files in numbers of 32 bits on some machines and of 64 on others.

/// The number, as wide as it may be.
pub(in crate::workload) fn wide<W>(number: impl Into<W>) -> W {
    number.into()
}
