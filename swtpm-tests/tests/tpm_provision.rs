//! `ironroot-agent tpm provision`: a DevID key in a chip, its requests, and an agent that attests with what came of it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use der::zeroize::Zeroizing;
use ironroot_attest::structures::{Attest, Attested, Public, Signature};
use ironroot_attest::tpm::{DevIdKey, HierarchyPassword};
use ironroot_lab::deployment::{AgentOptions, Device, Server, ServerOptions, TRUST_DOMAIN, binary};
use ironroot_lab::devid_pki::DevIdPki;
use ironroot_lab::swtpm::Swtpm;

const ALICE: u32 = 60_001;

fn provision(chip: &Swtpm, directory: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(binary("ironroot-agent"));
    command.args(["tpm", "provision", "-tpm", &chip.tcti(), "-directory"]).arg(directory).args(more);
    command.output().expect("ironroot-agent starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn read(directory: &Path, name: &str) -> Vec<u8> {
    std::fs::read(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn a_provisioned_device_attests_once_a_ca_has_answered_its_request() {
    let pki = DevIdPki::new();
    for (algorithm, password) in [("p256", None), ("rsa2048", Some("hunter2"))] {
        let server = Server::start(&ServerOptions { plugins: pki.server_block(), ..ServerOptions::default() });
        let (chip, place) = (pki.chip(), tempfile::tempdir().expect("directory"));
        let directory = place.path().join("devid");
        let file = place.path().join("password");
        std::fs::write(&file, password.unwrap_or_default()).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("ours");
        let name = format!("SN-{algorithm}");
        let file = file.display().to_string();
        let mut arguments = vec!["-algorithm", algorithm, "-serial", &name, "-model", "gateway-2"];
        arguments.extend(password.iter().flat_map(|_| ["-passwordFile", file.as_str()]));
        let made = provision(&chip, &directory, &arguments);
        let told = said(&made);
        assert!(made.status.success(), "{told}");
        for told_of in ["devid_cert_path = ", "devid_priv_path = ", "tpm_device_path = \"swtpm:host=", "-undo"] {
            assert!(told.contains(told_of), "{told}");
        }
        assert_eq!(chip.left_loaded().expect("told"), Vec::<u32>::new(), "nothing stays in the chip");
        let mode = |name: &str| std::fs::metadata(directory.join(name)).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode("devid.priv"), mode("devid.pub"), mode("devid.csr")), (0o600, 0o644, 0o644));
        assert!(told.contains(&format!("chown ironroot-agent {}", directory.join("devid.priv").display())), "{told}");

        let bytes = Zeroizing::new(password.unwrap_or_default().as_bytes().to_vec());
        let password_of_key = HierarchyPassword::new(bytes).expect("short");
        let key = DevIdKey::new(&read(&directory, "devid.pub"), &read(&directory, "devid.priv"), password_of_key);
        let key = key.expect("a DevID key");
        is_a_request_for(&directory.join("devid.csr"), &key, &name);
        is_a_tcg_request_for(&read(&directory, "devid.tcg-csr"), &key, &name);

        let devid = pki.certify(&key, &name, password);
        let alias = format!("spiffe://{TRUST_DOMAIN}/gateway");
        let selectors: Vec<&str> = devid.selectors.iter().map(String::as_str).collect();
        server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/spire/server"), "/gateway", &selectors, &[]);
        server.create_entry(&alias, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
        let mut device = Device::without_tpm();
        let node_attestor = Some(devid.agent_block(&chip.tcti()));
        device.provision(&server, &AgentOptions { node_attestor, key_manager: "memory", ..AgentOptions::default() });
        device.start();
        device.expect_identity(ALICE);
    }
}

/// By OpenSSL, which knows nothing of us.
fn is_a_request_for(csr: &Path, key: &DevIdKey, name: &str) {
    let openssl = |more: &[&str]| {
        let output =
            Command::new("openssl").args(["req", "-in"]).arg(csr).args(["-noout", "-verify"]).args(more).output();
        let output = output.expect("openssl starts");
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let subject = openssl(&["-subject"]);
    assert!(subject.contains(&format!("CN = {name}, serialNumber = {name}")), "{subject}");
    assert!(openssl(&["-text"]).contains("Digital Signature"));
    let pem = openssl(&["-pubkey"]);
    let base64: String = pem.lines().filter(|line| !line.contains('-') && !line.contains(' ')).collect();
    let spki = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, base64).expect("base64");
    assert_eq!(spki, key.key().to_spki_der());
}

/// Read as TCG TPM 2.0 Keys for Device Identity and Attestation §13.1 has it, by no code of ours but the TPM's structures.
fn is_a_tcg_request_for(request: &[u8], key: &DevIdKey, name: &str) {
    let u32_at = |at: usize| u32::from_be_bytes(request[at..at + 4].try_into().expect("four bytes")) as usize;
    assert_eq!(u32_at(0), 0x100);
    let (contents_size, signature_size) = (u32_at(4), u32_at(8));
    let (contents, signature) = request[12..].split_at(contents_size);
    assert_eq!(signature.len(), signature_size);
    assert!(Signature::parse(signature).expect("TPMT_SIGNATURE").is_by(key.key(), contents), "the DevID key signed");
    assert_eq!(contents[..12], [0, 0, 1, 0, 0, 0, 0, 0x0b, 0, 0, 0, 32]);
    let hashed = &contents[44..];
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, hashed);
    assert_eq!(&contents[12..44], hash.as_ref());
    let (sizes, mut rest) = hashed.split_at(13 * 4);
    let mut fields = Vec::new();
    for size in sizes.chunks(4) {
        let size = u32::from_be_bytes(size.try_into().expect("four bytes")) as usize;
        let (field, after) = rest.split_at(size);
        fields.push(field);
        rest = after;
    }
    assert_eq!(rest, [0; 0]);
    assert_eq!((fields[0], fields[1]), (&b"gateway-2"[..], name.as_bytes()));
    ironroot_attest::ek_certificate::EkCertificate::parse(fields[4]).expect("an EK certificate");
    let (ak, devid) = (Public::parse(fields[5]).expect("AK"), Public::parse(fields[9]).expect("DevID"));
    assert_eq!(devid.key(), key.key());
    assert!(Signature::parse(fields[11]).expect("TPMT_SIGNATURE").is_by(ak.key(), fields[10]));
    let certify = Attest::parse(fields[10]).expect("TPMS_ATTEST");
    assert!(matches!(certify.attested(), Attested::Certify { name } if name == devid.name()));
}

#[test]
fn nothing_is_overwritten_and_what_was_made_can_be_undone() {
    let pki = DevIdPki::new();
    let (chip, place) = (pki.chip(), tempfile::tempdir().expect("directory"));
    let directory = place.path().join("devid");
    assert!(provision(&chip, &directory, &["-output", "json"]).status.success());
    let before = read(&directory, "devid.priv");
    let again = provision(&chip, &directory, &[]);
    assert!(!again.status.success() && said(&again).contains("is not overwritten"), "{}", said(&again));
    assert_eq!(read(&directory, "devid.priv"), before);
    // Nor a certificate whose key would not fit any more.
    std::fs::write(directory.join("devid.pem"), "a certificate").expect("written");
    let undone = provision(&chip, &directory, &["-undo"]);
    assert!(undone.status.success() && said(&undone).contains("devid.priv"), "{}", said(&undone));
    let left: Vec<_> = std::fs::read_dir(&directory).expect("left").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["devid.pem"]);
    let again = provision(&chip, &directory, &[]);
    assert!(!again.status.success() && said(&again).contains("devid.pem"), "{}", said(&again));
    std::fs::remove_file(directory.join("devid.pem")).expect("ours");
    assert!(provision(&chip, &directory, &[]).status.success());
    assert_ne!(read(&directory, "devid.priv"), before, "another key");
    assert!(provision(&chip, &directory, &["-undo"]).status.success());
    assert!(!directory.exists());
    assert!(said(&provision(&chip, &directory, &["-undo"])).contains("Nothing to undo"));
}

#[test]
fn a_chip_that_nobody_vouches_for_gets_no_devid() {
    let (chip, place) = (Swtpm::start().expect("swtpm starts"), tempfile::tempdir().expect("directory"));
    let refused = provision(&chip, &place.path().join("devid"), &[]);
    assert!(!refused.status.success() && said(&refused).contains("no certificate"), "{}", said(&refused));
    assert!(!place.path().join("devid").join("devid.priv").exists());
}
