//! The agent's systemd unit.

/// The unit that the package and the Yocto layer install.
const UNIT: &str = include_str!("../dist/ironroot-agent.service");

fn values(key: &str) -> impl Iterator<Item = &'static str> {
    UNIT.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('=')).flat_map(str::split_whitespace)
}

#[test]
fn the_driver_that_a_device_rule_names_is_loaded_before_the_unit_starts() {
    let drivers: Vec<&str> = values("DeviceAllow").filter_map(|value| value.strip_prefix("char-")).collect();
    assert_eq!(drivers, ["tpm"]);
    for driver in drivers {
        let loads = format!("modprobe@{driver}.service");
        assert!(values("Wants").any(|unit| unit == loads) && values("After").any(|unit| unit == loads), "{loads}");
    }
}
