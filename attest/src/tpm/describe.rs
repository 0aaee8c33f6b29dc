//! What a chip says of itself, for people.

use tss_esapi::constants::{CapabilityType, PropertyTag};
use tss_esapi::structures::CapabilityData;

use super::chip::Chip;
use super::connection::{Connection, NO_SESSION};
use super::error::TpmError;

/// Maker, model and firmware, in the chip's own words; nothing of it is proven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChipDescription {
    /// The vendor ID of the TCG's registry as text, such as `IFX`; hex digits where it is not text.
    pub manufacturer: String,
    /// The vendor's own words, such as `SLB9670`; may be empty.
    pub model: String,
    /// Firmware version, as the two numbers that a quote holds.
    pub firmware: u64,
}

impl Chip {
    /// What the chip says of itself. Source: TPM_PT_FIXED, Part 2 §6.13.
    pub fn describe(&mut self) -> Result<ChipDescription, TpmError> {
        self.task(|tpm| {
            let manufacturer = tpm.property(PropertyTag::Manufacturer)?.unwrap_or_default();
            let mut model = Vec::new();
            for tag in [
                PropertyTag::VendorString1,
                PropertyTag::VendorString2,
                PropertyTag::VendorString3,
                PropertyTag::VendorString4,
            ] {
                model.extend(tpm.property(tag)?.unwrap_or_default().to_be_bytes());
            }
            let high = u64::from(tpm.property(PropertyTag::FirmwareVersion1)?.unwrap_or_default());
            let low = u64::from(tpm.property(PropertyTag::FirmwareVersion2)?.unwrap_or_default());
            let id = text(&manufacturer.to_be_bytes());
            Ok(ChipDescription {
                manufacturer: if id.is_empty() { format!("{manufacturer:08x}") } else { id },
                model: text(&model),
                firmware: high << 32 | low,
            })
        })
    }
}

impl Connection {
    /// `None` if the chip does not say: it answers with the next property that it has.
    pub(super) fn property(&mut self, tag: PropertyTag) -> Result<Option<u32>, TpmError> {
        let (answer, _) = self.command("TPM2_GetCapability", NO_SESSION, |esys| {
            esys.get_capability(CapabilityType::TpmProperties, tag.into(), 1)
        })?;
        let CapabilityData::TpmProperties(found) = answer else { return Ok(None) };
        Ok(found.find(tag).map(|property| property.value()))
    }
}

/// Printable ASCII; padding and everything else is left out.
fn text(bytes: &[u8]) -> String {
    let printable = bytes.iter().filter(|byte| byte.is_ascii_graphic() || **byte == b' ');
    printable.copied().map(char::from).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_and_control_characters_are_no_text() {
        assert_eq!(text(b"IFX\0"), "IFX");
        assert_eq!(text(b"SW   TPM\x1b[31m\0\0"), "SW   TPM[31m");
        assert_eq!(text(&[0, 0, 0x10, 0x14]), "");
    }
}
