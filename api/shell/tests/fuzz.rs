//! The readers of configuration, fed damaged input.

use ironroot_fuzz::Target;
use ironroot_shell::settings::{Settings, parse_duration};

fn corpus(name: &str) -> String {
    format!("{}/tests/corpus/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn configuration_files_survive_damage() {
    Target::new("HCL").corpus(corpus("hcl")).survives(|bytes| {
        let Ok(text) = ironroot_text::decode(bytes) else { return };
        let _ = Settings::parse("x.conf".as_ref(), &text);
        let _ = Settings::parse_expanded("x.conf".as_ref(), &text, |name| Some(name.to_owned()));
    });
}

#[test]
fn durations_survive_damage() {
    Target::new("duration").seed(*b"1h30m").seed(*b"-1.5s").survives(|bytes| {
        let _ = std::str::from_utf8(bytes).map(parse_duration);
    });
}
