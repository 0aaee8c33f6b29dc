//! The one-minute form of `scripts/soak`.

use std::time::Duration;

use ironroot_lab::soak::Soak;

#[test]
fn a_minute_of_rotation_and_kills_leaves_no_workload_without_a_valid_svid_and_no_key_behind() {
    let seen = Soak { agents: 4, duration: Duration::from_secs(75), kill_every: Duration::from_secs(30) }.run();
    println!("{seen}");
    assert!(seen.failures.is_empty(), "{seen}");
}
