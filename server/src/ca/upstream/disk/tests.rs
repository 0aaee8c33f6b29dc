//! Files in each half-good form.

use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ironroot_shell::command_line::describe;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SignatureAlgorithm};
use tempfile::TempDir;

use super::*;

/// Within the life of rcgen's certificates.
const NOW: i64 = 1_800_000_000;

struct Files {
    directory: TempDir,
    authority: DiskAuthority,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

/// An authority, and the root above it: its certificate, its key and the root's certificate, PEM.
fn under_a_root(algorithm: &'static SignatureAlgorithm) -> [String; 3] {
    let (root_key, own_key) = (key(&rcgen::PKCS_ECDSA_P256_SHA256), key(algorithm));
    let root = params("root").self_signed(&root_key).unwrap();
    let own = params("own").signed_by(&own_key, &Issuer::new(params("root"), root_key)).unwrap();
    [own.pem(), own_key.serialize_pem(), root.pem()]
}

fn self_signed(algorithm: &'static SignatureAlgorithm) -> [String; 2] {
    let key = key(algorithm);
    [params("root").self_signed(&key).unwrap().pem(), key.serialize_pem()]
}

fn private(path: &Path, text: &str) {
    write(path, text).unwrap();
    set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

impl Files {
    fn of(certificate: &str, key: &str, bundle: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [certificate_path, key_path, bundle_path] =
            ["cert.pem", "key.pem", "bundle.pem"].map(|n| directory.path().join(n));
        private(&certificate_path, certificate);
        private(&key_path, key);
        let bundle_path = bundle.map(|text| {
            private(&bundle_path, text);
            bundle_path
        });
        Self { directory, authority: DiskAuthority { certificate_path, key_path, bundle_path } }
    }

    fn look(&self) -> Result<(), DiskError> {
        self.authority.look(&TrustDomain::new("example.org").unwrap(), NOW)
    }

    fn refused(&self) -> String {
        describe(&self.look().unwrap_err())
    }
}

#[test]
fn each_kind_of_key_is_read_and_what_it_signs_verifies_under_its_roots() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_ML_DSA_44,
        &rcgen::PKCS_ML_DSA_65,
        &rcgen::PKCS_ML_DSA_87,
    ] {
        let [certificate, key] = self_signed(algorithm);
        Files::of(&certificate, &key, None).look().unwrap();
        let [certificate, key, root] = under_a_root(algorithm);
        Files::of(&certificate, &key, Some(&root)).look().unwrap();
    }
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P521_SHA512] {
        let [certificate, key] = self_signed(algorithm);
        let refused = Files::of(&certificate, &key, None).refused();
        assert!(refused.contains("is none of EC P-256, EC P-384, RSA"), "{refused}");
    }
}

#[test]
fn files_that_do_not_belong_together_are_refused_in_spires_words() {
    let [certificate, key, root] = under_a_root(&rcgen::PKCS_ECDSA_P256_SHA256);
    let [other, other_key] = self_signed(&rcgen::PKCS_ECDSA_P256_SHA256);
    let both = format!("{certificate}{root}");
    for (files, words) in [
        (Files::of(&certificate, &other_key, Some(&root)), "certificate and private key do not match"),
        (Files::of(&both, &key, None), "with no bundle_file_path configured only self-signed CAs are supported"),
        (Files::of(&certificate, &key, None), "cannot be validated with the provided bundle or is not self-signed"),
        (Files::of(&certificate, &key, Some(&other)), "cannot be validated with the provided bundle"),
        (Files::of(&certificate, "", Some(&root)), "unable to load upstream CA key"),
        (Files::of("", &key, Some(&root)), "unable to load upstream CA cert"),
        (Files::of(&certificate, &key, Some("")), "unable to load upstream CA bundle"),
        (Files::of(&certificate, &format!("{key}{other_key}"), Some(&root)), "holds 2 private keys that can be read"),
        (
            Files::of(&certificate, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", Some(&root)),
            "is none of EC",
        ),
    ] {
        let refused = files.refused();
        assert!(refused.contains(words), "{words:?} is not in: {refused}");
        assert!(!refused.contains("AAAA"), "{refused}");
    }
}

#[test]
fn files_that_are_not_there_or_are_everybodys_are_refused_by_name() {
    let [certificate, key] = self_signed(&rcgen::PKCS_ECDSA_P256_SHA256);
    let files = Files::of(&certificate, &key, None);
    set_permissions(&files.authority.key_path, Permissions::from_mode(0o604)).unwrap();
    let refused = files.refused();
    assert!(refused.contains("every user has rights to") && refused.contains("key.pem"), "{refused}");
    std::fs::remove_file(&files.authority.key_path).unwrap();
    let refused = files.refused();
    assert!(refused.contains("key.pem") && refused.contains("No such file"), "{refused}");
    private(&files.authority.key_path, &key);
    std::fs::remove_file(&files.authority.certificate_path).unwrap();
    assert!(files.refused().contains("cert.pem"));
    drop(files.directory);
}

#[test]
fn an_authority_that_has_ended_certifies_nothing() {
    let key = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    let mut ended = params("root");
    ended.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let files = Files::of(&ended.self_signed(&key).unwrap().pem(), &key.serialize_pem(), None);
    assert!(files.refused().contains("unable to sign CSR"));
}
