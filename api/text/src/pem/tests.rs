use super::*;
use crate::decode;

fn certificate() -> rcgen::Certificate {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
    rcgen::CertificateParams::default().self_signed(&key).expect("certificate")
}

fn ders(text: &str) -> Result<Vec<Vec<u8>>, PemError> {
    certificates(&decode(text.as_bytes()).expect("text")).map(|all| all.iter().map(|der| der.to_vec()).collect())
}

#[test]
fn a_mark_or_another_line_end_does_not_lose_a_certificate() {
    let (a, b) = (certificate(), certificate());
    let both = Ok(vec![a.der().to_vec(), b.der().to_vec()]);
    let (a, b) = (a.pem().replace("\r\n", "\n"), b.pem().replace("\r\n", "\n"));
    for text in [
        format!("{a}{b}"),
        format!("\u{feff}{a}\u{feff}{b}"),
        format!("{a}{b}").replace('\n', "\r"),
        format!("{a}{b}").replace('\n', "\r\n"),
        format!("Certificate:\n    Data:\n{a}\n# the second\n{b}").trim_end().to_owned(),
        format!("{a}{b}").replace('\n', " \n  "),
        format!("{a}{b}").replace(" CERTIFICATE", " X509 CERTIFICATE"),
    ] {
        assert_eq!(ders(&text), both, "{text:?}");
    }
}

#[test]
fn what_looks_like_a_frame_and_is_not_counted_is_an_error() {
    let good = certificate().pem().replace("\r\n", "\n");
    let lines = good.lines().count();
    for nearly in [
        "----BEGIN CERTIFICATE----",
        "-----BEGIN CERTIFICATE----",
        "\u{2014}\u{2014}BEGIN CERTIFICATE\u{2014}\u{2014}",
        "\u{2014}BEGIN CERTIFICATE\u{2014}",
        "-----Begin Certificate-----",
        "-----BEGIN  CERTIFICATE",
        "x-----BEGIN CERTIFICATE-----",
        "-----END CERTIFICATE-----",
        "- - - BEGIN CERTIFICATE",
    ] {
        let second = good.replacen("-----BEGIN CERTIFICATE-----", nearly, 1);
        let refused = ders(&format!("{good}{second}"));
        assert_eq!(refused, Err(PemError::Frame { line: lines + 1 }), "{nearly}");
    }
    let glued = format!("{}{good}", good.trim_end());
    assert_eq!(ders(&glued), Err(PemError::Frame { line: lines }), "two files joined without a line end");
}

#[test]
fn frames_that_are_open_empty_or_not_certificates_are_named_with_their_line() {
    let good = certificate().pem().replace("\r\n", "\n");
    let end = "-----END CERTIFICATE-----";
    assert_eq!(ders(""), Err(PemError::None));
    assert_eq!(ders("just words\n"), Err(PemError::None));
    assert_eq!(ders(&good.replace(end, "")), Err(PemError::Open { line: 1 }));
    assert_eq!(ders(&(good.replace(end, "") + &good)), Err(PemError::Open { line: 1 }));
    assert_eq!(ders(&good.replace(end, "-----END X509 CERTIFICATE-----")), Err(PemError::Open { line: 1 }));
    assert_eq!(ders(&format!("-----BEGIN CERTIFICATE-----\n{end}\n")), Err(PemError::Base64 { line: 1 }));
    assert_eq!(ders(&format!("\n-----BEGIN CERTIFICATE-----\n!!!!\n{end}\n")), Err(PemError::Base64 { line: 2 }));
    for label in ["PRIVATE KEY", "TRUSTED CERTIFICATE", "X509 CRL", "EC PARAMETERS"] {
        let other = good.replace(" CERTIFICATE", &format!(" {label}"));
        assert_eq!(ders(&other), Err(PemError::Label { line: 1, label: label.to_owned() }));
    }
    let key = PemError::Label { line: 1, label: "PRIVATE KEY".to_owned() }.to_string();
    assert!(key.ends_with("a private key does not belong into this file"), "{key}");
}

#[test]
fn words_about_certificates_are_no_frames() {
    let good = certificate().pem();
    let text = format!("# begin of the CERTIFICATEs\nend-to-end: yes\nsubject=/CN=x-y-z\n{good}");
    assert_eq!(ders(&text).map(|all| all.len()), Ok(1));
}
