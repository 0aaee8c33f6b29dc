//! The readers of operators' files and messages, fed damaged input.

use ironroot_api::TrustDomain;
use ironroot_api::pb::{device as pb, types};
use ironroot_fuzz::Target;
use ironroot_server::cli::device::manifest::parse_manifest;
use ironroot_server::devices::NewDevice;
use ironroot_server::facts::entry::NewEntry;
use prost::Message;

fn corpus(name: &str) -> String {
    format!("{}/tests/corpus/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn manifests_survive_damage_and_what_is_read_is_sent_and_taken() {
    Target::new("manifest").corpus(corpus("manifest")).survives(|bytes| {
        let Ok(text) = ironroot_text::decode(bytes) else { return };
        for device in parse_manifest(&text).unwrap_or_default() {
            assert_eq!(NewDevice::from_pb(&device.to_pb()), Ok(device));
        }
        // The same without the door in front.
        let _ = std::str::from_utf8(bytes).map(parse_manifest);
    });
}

#[test]
fn messages_of_administrators_survive_damage() {
    let id = |path: &str| Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() });
    let selectors = vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }];
    let entry =
        types::Entry { id: "e".into(), spiffe_id: id("/w"), parent_id: id("/p"), selectors, ..Default::default() };
    let device = pb::NewDevice { ek_sha256: "a".repeat(64), serial: Some("S".into()), ..Default::default() };
    let trust_domain = TrustDomain::new("example.org").expect("legal");
    Target::new("messages").seed(entry.encode_to_vec()).seed(device.encode_to_vec()).survives(|bytes| {
        if let Ok(entry) = types::Entry::decode(bytes) {
            let _ = NewEntry::from_pb(&entry, &trust_domain);
        }
        if let Ok(device) = pb::NewDevice::decode(bytes) {
            let _ = NewDevice::from_pb(&device);
        }
    });
}
