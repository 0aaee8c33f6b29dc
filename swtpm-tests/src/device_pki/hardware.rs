//! Devices whose certificate's key was made in a token or a TPM and stays there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use der::Decode;
use rcgen::{CertificateParams, DnType, KeyUsagePurpose, PublicKeyData, SignatureAlgorithm};
use spki::SubjectPublicKeyInfoRef;

use super::{DevicePki, fingerprint};
use crate::deployment::TRUST_DOMAIN;
use crate::softhsm::{LABEL, PIN, SoftHsm};
use crate::swtpm::Swtpm;

/// What such a device was given.
pub struct HardwareIdentity {
    files: PathBuf,
    /// The SPIFFE ID of the agent that attests with it.
    pub agent_id: String,
}

impl DevicePki {
    /// Gives a device a certificate for a public key of `algorithm`, as the last field of a SubjectPublicKeyInfo has it.
    pub fn issue_for(&self, name: &str, public: &[u8], algorithm: &'static SignatureAlgorithm) -> HardwareIdentity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let public = Public { bits: public.to_vec(), algorithm };
        let certificate = params.signed_by(&public, &self.issuer).expect("signed");
        let files = self.directory.path().join(name);
        fs::create_dir_all(&files).expect("directory");
        fs::write(files.join("device.pem"), certificate.pem() + &self.between.pem()).expect("written");
        let agent_id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/x509pop/{}", fingerprint(&certificate));
        HardwareIdentity { files, agent_id }
    }
}

impl HardwareIdentity {
    /// The `NodeAttestor` block of our agent on this device; `key`: the lines that say where the key is.
    pub fn agent_block(&self, key: &str) -> String {
        let certificate = self.files.join("device.pem");
        let certificate = format!("certificate_path = \"{}\"", certificate.display());
        format!("NodeAttestor \"x509pop\" {{ plugin_data {{\n{certificate}\n{key}\n}} }}")
    }
}

struct Public {
    bits: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for Public {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// Makes a key labelled `label` in the token; `kind` as pkcs11-tool names it. Its public half, and the lines of the configuration that
/// name it.
pub fn key_in_token(token: &SoftHsm, kind: &str, label: &str) -> (Vec<u8>, String) {
    let (module, public) = (SoftHsm::module_path().display().to_string(), token.file(label));
    let login = ["--module", &module, "--token-label", LABEL, "--login", "--pin", PIN];
    let make = ["--keypairgen", "--key-type", kind, "--label", label, "--id", "0a01", "--usage-sign", "--sensitive"];
    token.run("pkcs11-tool", &[&login[..], &make].concat());
    let listed = token.run("pkcs11-tool", &[&login[..], &["--list-objects", "--type", "pubkey"]].concat());
    let point = listed.lines().find_map(|line| line.trim().strip_prefix("EC_POINT:"));
    let public = match point.map(|octets| bytes(octets.trim())) {
        // In a DER OCTET STRING. Debian's pkcs11-tool reads no keys on P-384, and lists no RSA modulus.
        Some(octets) => octets[2..].to_vec(),
        None => {
            let to = public.display().to_string();
            let read = ["--read-object", "--type", "pubkey", "--id", "0a01", "--output-file", &to];
            token.run("pkcs11-tool", &[&login[..], &read].concat());
            bits(&fs::read(public).expect("read"))
        }
    };
    let pin = token.pin_file();
    let uri = format!(
        "pkcs11:token={LABEL};object={label};type=private?module-path={module}&pin-source=file:{}",
        pin.display()
    );
    (public, format!("private_key_uri = \"{uri}\""))
}

/// Makes a key in the chip and leaves it at `handle`; `kind` as tpm2-tools name it. Its public half, and the lines of the configuration
/// that name it.
pub fn key_in_tpm(chip: &Swtpm, kind: &str, handle: u32) -> (Vec<u8>, String) {
    let directory = tempfile::tempdir().expect("directory");
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (context, public, handle) = (file("context"), file("public"), format!("{handle:#x}"));
    let attributes = "sign|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda";
    let made = ["-Q", "-C", "o", "-G", kind, "-a", attributes, "-c", &context];
    tpm2(chip, "tpm2_createprimary", &made);
    tpm2(chip, "tpm2_evictcontrol", &["-Q", "-C", "o", "-c", &context, &handle]);
    tpm2(chip, "tpm2_flushcontext", &["-Q", "-t"]);
    tpm2(chip, "tpm2_readpublic", &["-Q", "-c", &handle, "-f", "der", "-o", &public]);
    let lines = format!("private_key_uri = \"handle:{handle}\"\ntpm_address = \"{}\"", chip.address());
    (bits(&fs::read(Path::new(&public)).expect("read")), lines)
}

/// The last field of a DER SubjectPublicKeyInfo.
fn bits(spki: &[u8]) -> Vec<u8> {
    let spki = SubjectPublicKeyInfoRef::from_der(spki).expect("a public key");
    spki.subject_public_key.as_bytes().expect("whole bytes").to_vec()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("hexadecimal");
    digits.chunks_exact(2).map(byte).collect()
}

fn tpm2(chip: &Swtpm, program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).args(["-T", &chip.tcti()]).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program} is missing ({error}); run: apt-get install tpm2-tools"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
