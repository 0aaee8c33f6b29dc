//! Lists of measured files (IMA) of a machine that there is not, and the register that they lead to. Written with no code of the parser.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

/// A list with files of SHA-256 (`ima-ng`), under way.
#[derive(Clone, Default)]
pub struct ImaList {
    bytes: Vec<u8>,
    register: [u8; 32],
    extended: Vec<(u32, [u8; 32])>,
}

impl ImaList {
    /// That of a machine whose PCRs 0 to 9 are `booted`: their digest, and nothing else yet.
    pub fn begun(booted: &[[u8; 32]]) -> Self {
        let mut list = Self::default();
        list.file("boot_aggregate", sha256(&booted[..10].concat()));
        list
    }

    /// A file with that content.
    pub fn measure(&mut self, path: &str, content: &[u8]) {
        self.file(path, sha256(content));
    }

    /// A file with that digest.
    pub fn file(&mut self, path: &str, file: [u8; 32]) {
        let digest_field = [&b"sha256:\0"[..], &file].concat();
        let name_field = [path.as_bytes(), b"\0"].concat();
        self.entry(10, "ima-ng", &[field(&digest_field), field(&name_field)].concat());
    }

    /// What the kernel could not tell.
    pub fn violation(&mut self, path: &str) {
        let data = [field(&[&b"sha256:\0"[..], &[0; 32]].concat()), field(&[path.as_bytes(), b"\0"].concat())].concat();
        self.write(10, [0; 20], "ima-ng", &data);
        self.extend([0xff; 32]);
    }

    /// Any entry, with the digest of its data; extended if it is one of PCR 10.
    pub fn entry(&mut self, pcr: u32, template: &str, data: &[u8]) {
        let listed = digest(&SHA1_FOR_LEGACY_USE_ONLY, data).as_ref().try_into().expect("20 bytes");
        self.write(pcr, listed, template, data);
        if pcr == 10 {
            self.extend(sha256(data));
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// PCR 10 of the SHA-256 bank as it is then.
    pub fn register(&self) -> [u8; 32] {
        self.register
    }

    /// Every digest, with its register, in order: what a chip is to be extended with.
    pub fn extended(&self) -> &[(u32, [u8; 32])] {
        &self.extended
    }

    /// The digest of a file with that content, as the list names it.
    pub fn digest_of(content: &[u8]) -> String {
        let digits: Vec<String> = sha256(content).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{}", digits.concat())
    }

    fn write(&mut self, pcr: u32, listed: [u8; 20], template: &str, data: &[u8]) {
        self.bytes.extend(pcr.to_le_bytes());
        self.bytes.extend(listed);
        self.bytes.extend(field(template.as_bytes()));
        self.bytes.extend(field(data));
    }

    fn extend(&mut self, with: [u8; 32]) {
        self.register = sha256(&[self.register, with].concat());
        self.extended.push((10, with));
    }
}

/// Behind its length.
fn field(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("32 bytes")
}
