//! UEFI_VARIABLE_DATA (PC Client Platform Firmware Profile §10.2.6): a variable as it was measured.

use super::reader::Reader;

/// Longest name accepted, UTF-16 units. The longest that counts here is ten.
const MAX_NAME_UNITS: u64 = 128;

/// EFI_GLOBAL_VARIABLE, as it lies in memory (UEFI 2.10 §3.3).
pub(super) const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
/// EFI_IMAGE_SECURITY_DATABASE_GUID (UEFI 2.10 §32.6.1).
pub(super) const IMAGE_SECURITY: [u8; 16] =
    [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];

/// A variable's vendor, name and content.
pub(super) struct EfiVariable<'a> {
    pub vendor: &'a [u8],
    pub name: String,
    pub content: &'a [u8],
}

impl<'a> EfiVariable<'a> {
    /// None if the bytes are no variable, to their exact end.
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(data);
        let vendor = reader.take(16).ok()?;
        let (units, bytes) = (reader.u64().ok()?, reader.u64().ok()?);
        if units > MAX_NAME_UNITS {
            return None;
        }
        let name = utf16(reader.take(2 * usize::try_from(units).ok()?).ok()?)?;
        let content = reader.take(usize::try_from(bytes).ok()?).ok()?;
        reader.is_at_end().then_some(Self { vendor, name, content })
    }
}

/// Text in UTF-16, little-endian, without the zero at its end.
pub(super) fn utf16(bytes: &[u8]) -> Option<String> {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let text = String::from_utf16(&units).ok()?;
    bytes.len().is_multiple_of(2).then(|| text.trim_end_matches('\0').to_owned())
}
