//! Event types (PC Client Platform Firmware Profile §10.4.1). They are not measured.

pub const NO_ACTION: u32 = 0x3;
pub const SEPARATOR: u32 = 0x4;
pub const IPL: u32 = 0xd;
pub const EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
pub const EFI_ACTION: u32 = 0x8000_0007;
pub const EFI_VARIABLE_AUTHORITY: u32 = 0x8000_00e0;
