use super::*;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

fn mistakes(text: &str) -> Vec<Mistake> {
    parse_manifest(text).expect_err("mistakes").mistakes
}

fn lines(text: &str) -> Vec<usize> {
    mistakes(text).into_iter().map(|m| m.line).collect()
}

fn certificate_pem() -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
    rcgen::CertificateParams::default().self_signed(&key).expect("certificate").pem()
}

#[test]
fn csv_and_json_say_the_same() {
    let csv = format!("ek_sha256,serial,label:site\n{A},S-1,berlin\n\n{B},\"S, \"\"2\"\"\",\n");
    let json = format!(
        r#"[{{"ek_sha256": "{A}", "serial": "S-1", "labels": {{"site": "berlin"}}}},
            {{"ek_sha256": "{B}", "serial": "S, \"2\"", "labels": {{"site": ""}}}}]"#
    );
    let devices = parse_manifest(&csv).expect("good CSV");
    assert_eq!(devices, parse_manifest(&json).expect("good JSON"));
    assert_eq!(devices, parse_manifest(&format!(" {{\"devices\": {json}}}")).expect("good JSON object"));
    assert_eq!(devices[0].ek_sha256(), [0xaa; 32]);
    assert_eq!(devices[0].labels().get("site").map(String::as_str), Some("berlin"));
    assert_eq!((devices[1].serial(), devices[1].labels().get("site")), (Some("S, \"2\""), Some(&String::new())));
}

#[test]
fn a_missing_column_says_nothing_and_an_empty_cell_says_none() {
    let columns = |text: &str| {
        let device = parse_manifest(text).expect("good").swap_remove(0);
        (device.serial().map(str::to_owned), device.labels().len())
    };
    assert_eq!(columns(&format!("ek_sha256\n{A}\n")), (None, 0));
    assert_eq!(columns(&format!("ek_sha256,serial,label:a\n{A},,\n")), (Some(String::new()), 1));
    assert_eq!(columns(&format!("[{{\"ek_sha256\":\"{A}\"}}]")), (None, 0));
    assert_eq!(columns(&format!("[{{\"ek_sha256\":\"{A}\",\"serial\":\"\"}}]")), (Some(String::new()), 0));
}

#[test]
fn lists_are_read_as_spreadsheets_save_them() {
    let wanted = parse_manifest(&format!("ek_sha256,serial,label:site\n{A},S-1,rome\n{B},S-2,\n")).expect("good");
    for text in [
        format!("ek_sha256;serial;label:site\n{A};S-1;rome\n{B};S-2;\n"),
        format!("ek_sha256\tserial\tlabel:site\n{A}\tS-1\trome\n{B}\tS-2\t\n"),
        format!("sep=;\nek_sha256;serial;label:site\n{A};S-1;rome\n{B};S-2;\n"),
        format!("EK_SHA256, Serial ,Label: site\n {A} , S-1,rome\n{B},S-2 ,  \n"),
        format!("ek_sha256,serial,label:site,,\n{A},S-1,rome,,\n,,,,\n{B},S-2,,,\n,,,,\n"),
        format!("\"ek_sha256\",\"serial\",\"label:site\"\n\"{A}\",\"S-1\",\"rome\"\n\"{B}\",\"S-2\",\"\""),
    ] {
        assert_eq!(parse_manifest(&text).as_ref(), Ok(&wanted), "{text:?}");
    }
}

#[test]
fn a_lone_carriage_return_ends_a_line_and_reading_ends() {
    let wanted = parse_manifest(&format!("ek_sha256,serial\n{A},SN\n")).expect("good");
    for text in [format!("ek_sha256,serial\n{A},SN\r"), format!("ek_sha256,serial\r{A},SN\r\r")] {
        assert_eq!(parse_manifest(&text).as_ref(), Ok(&wanted), "{text:?}");
        let text = ironroot_text::decode(text.as_bytes()).expect("text");
        assert_eq!(parse_manifest(&text).as_ref(), Ok(&wanted));
    }
    assert_eq!(lines("ek_sha256\r"), [1]);
}

#[test]
fn certificates_are_pem_or_base64_and_name_the_same_device() {
    let pem = certificate_pem();
    let base64: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    let from_pem = parse_manifest(&format!("serial,ek_certificate\nx,\"{pem}\"\n")).expect("PEM in CSV");
    let from_base64 = parse_manifest(&format!("[{{\"ek_certificate\": \"{base64}\", \"serial\": \"x\"}}]"));
    assert_eq!(from_pem, from_base64.expect("base64 in JSON"));
    let hash = hex(&from_pem[0].ek_sha256());
    assert_eq!(lines(&format!("ek_sha256,ek_certificate\n{hash},\n,{base64}\n")), [3]);
    assert_eq!(NewDevice::from_pb(&from_pem[0].to_pb()).as_ref(), Ok(&from_pem[0]));
}

#[test]
fn reports_every_mistake_with_its_line() {
    let csv = format!(
        "ek_sha256,ek_certificate,serial,label:a\n{A},,1,x\n\n{A},,2,x\nnot hex,,3,x\n,,4,x\n{B},AAAA,5,x\n,!,6\n"
    );
    assert_eq!(lines(&csv), [4, 5, 6, 7, 8]);
    let json = format!(
        "[\n{{\"ek_sha256\": \"{A}\", \"color\": 1}},\n{{\"ek_sha256\": 7}},\n{{\"ek_sha256\": \"{B}\", \"labels\": {{\n\"a:b\": \"\"}}}}\n]"
    );
    assert_eq!(lines(&json), [2, 3, 4]);
    let open = format!("ek_sha256,serial\n{A},1\n{B},5\" disk\n{A},\"open\n{B},3\n");
    assert_eq!(lines(&open), [3, 4]);
}

#[test]
fn refuses_what_has_no_sense_as_a_whole() {
    for (text, line) in [
        ("", 1),
        ("\n\n", 1),
        ("ek_sha256\n", 1),
        ("[]", 1),
        ("[\n{]", 2),
        ("{\"devices\": 1}", 1),
        ("serial\nx\n", 1),
        ("ek_sha256,ek_sha256\n", 1),
        ("ek_sha256,colour\n", 1),
        ("ek_sha256,label:\n", 1),
        ("ek_sha256\n\"open\n", 2),
    ] {
        assert_eq!(lines(text), [line], "{text:?}");
    }
}

#[test]
fn a_file_that_is_no_manifest_is_not_repeated() {
    for text in ["83746529", "83746529\n", "user=x 83746529\n", "[\"83746529\"]", "[83746529]", "ek,83746529\n"] {
        let told = parse_manifest(text).expect_err("no manifest").to_string();
        assert!(!told.contains("83746529"), "{told}");
    }
}
