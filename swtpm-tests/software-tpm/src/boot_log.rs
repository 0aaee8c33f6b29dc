//! Boot logs of a machine that there is not, and the registers that they lead to. Written with no code of the parser.

use aws_lc_rs::digest::{SHA256, digest};

/// Event types (TCG PC Client Platform Firmware Profile §10.4.1).
pub mod kind {
    pub const NO_ACTION: u32 = 0x3;
    pub const SEPARATOR: u32 = 0x4;
    pub const IPL: u32 = 0xd;
    pub const EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
    pub const EFI_BOOT_SERVICES_APPLICATION: u32 = 0x8000_0003;
    pub const EFI_ACTION: u32 = 0x8000_0007;
    pub const EFI_VARIABLE_AUTHORITY: u32 = 0x8000_00e0;
}

/// Vendors of variables, as their GUIDs lie in memory.
pub mod vendor {
    pub const GLOBAL: [u8; 16] =
        [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
    pub const IMAGE_SECURITY: [u8; 16] =
        [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];
}

/// A log with SHA-256 alone, under way.
#[derive(Clone)]
pub struct BootLog {
    bytes: Vec<u8>,
    pcrs: Vec<[u8; 32]>,
    extended: Vec<(u32, [u8; 32])>,
}

impl BootLog {
    /// With nothing but the header.
    pub fn new() -> Self {
        let mut header = b"Spec ID Event03\0".to_vec();
        header.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0b, 0, 32, 0, 0]);
        let mut bytes = [0u32.to_le_bytes(), kind::NO_ACTION.to_le_bytes()].concat();
        bytes.extend([0; 20]);
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(header);
        Self { bytes, pcrs: vec![[0; 32]; 24], extended: Vec::new() }
    }

    /// A machine that started `loader`, with or without Secure Boot.
    pub fn booted(secure_boot: bool, loader: &[u8]) -> Self {
        let mut log = Self::new();
        log.measure(0, 0x8, b"1\0.\x002\0");
        log.secure_boot(secure_boot);
        if secure_boot {
            let authority = efi_variable(&vendor::IMAGE_SECURITY, "db", b"owner...........certificate");
            log.measure(7, kind::EFI_VARIABLE_AUTHORITY, &authority);
        }
        (0..7).for_each(|pcr| log.measure(pcr, kind::SEPARATOR, &[0; 4]));
        let program = digest(&SHA256, loader).as_ref().try_into().expect("32 bytes");
        log.event(4, kind::EFI_BOOT_SERVICES_APPLICATION, program, b"a device path");
        log
    }

    /// What firmware measures into PCR 7 before it starts anything.
    pub fn secure_boot(&mut self, enabled: bool) {
        let key = if enabled { &b"a key"[..] } else { &[] };
        for (vendor, name, content) in [
            (&vendor::GLOBAL, "SecureBoot", &[u8::from(enabled)][..]),
            (&vendor::GLOBAL, "PK", key),
            (&vendor::GLOBAL, "KEK", key),
            (&vendor::IMAGE_SECURITY, "db", key),
            (&vendor::IMAGE_SECURITY, "dbx", b"forbidden"),
        ] {
            self.measure(7, kind::EFI_VARIABLE_DRIVER_CONFIG, &efi_variable(vendor, name, content));
        }
        self.measure(7, kind::SEPARATOR, &[0; 4]);
    }

    /// Measures `data` itself.
    pub fn measure(&mut self, pcr: u32, kind: u32, data: &[u8]) {
        let hash = digest(&SHA256, data).as_ref().try_into().expect("32 bytes");
        self.event(pcr, kind, hash, data);
    }

    /// Measures a digest, with data beside it that says what it likes.
    pub fn event(&mut self, pcr: u32, kind: u32, hash: [u8; 32], data: &[u8]) {
        self.tell(pcr, kind, hash, data);
        if kind != kind::NO_ACTION {
            let extended = digest(&SHA256, &[self.pcrs[pcr as usize], hash].concat());
            self.pcrs[pcr as usize] = extended.as_ref().try_into().expect("32 bytes");
            self.extended.push((pcr, hash));
        }
    }

    /// Writes an event that nothing is extended with.
    pub fn tell(&mut self, pcr: u32, kind: u32, hash: [u8; 32], data: &[u8]) {
        for number in [pcr, kind, 1] {
            self.bytes.extend(number.to_le_bytes());
        }
        self.bytes.extend(0x000b_u16.to_le_bytes());
        self.bytes.extend(hash);
        self.bytes.extend((data.len() as u32).to_le_bytes());
        self.bytes.extend(data);
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// PCRs 0 to 23 as they are then.
    pub fn pcrs(&self) -> &[[u8; 32]] {
        &self.pcrs
    }

    /// Every digest, with its register, in order: what a chip is to be extended with to stand where this machine stood.
    pub fn extended(&self) -> &[(u32, [u8; 32])] {
        &self.extended
    }
}

/// UEFI_VARIABLE_DATA.
pub fn efi_variable(vendor: &[u8; 16], name: &str, content: &[u8]) -> Vec<u8> {
    let name: Vec<u16> = name.encode_utf16().collect();
    let mut data = vendor.to_vec();
    data.extend((name.len() as u64).to_le_bytes());
    data.extend((content.len() as u64).to_le_bytes());
    name.iter().for_each(|unit| data.extend(unit.to_le_bytes()));
    data.extend(content);
    data
}
