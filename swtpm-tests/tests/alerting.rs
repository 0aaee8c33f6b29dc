//! Who is told of alerts, and who is not, by the Alertmanager's configuration that is shipped: a real one runs it.

use std::process::Command;

use ironroot_lab::alertmanager::Alertmanager;
use ironroot_lab::deployment::{DEADLINE, expect_within};
use ironroot_lab::prometheus::monitoring;

#[test]
fn the_configuration_is_what_alertmanager_takes_and_pages_go_to_the_pager() {
    let file = monitoring().join("alertmanager.yml");
    let amtool = |arguments: &[&str]| {
        let output =
            Command::new("amtool").args(arguments).output().expect("amtool: scripts/setup --tests installs it");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    };
    let file = file.to_str().expect("text");
    amtool(&["check-config", file]);
    let route = format!("--config.file={file}");
    for (severity, receiver) in [("page", "pager"), ("ticket", "tickets")] {
        let said = amtool(&["config", "routes", "test", &route, &format!("severity={severity}"), "part=signing"]);
        assert_eq!(said.lines().next(), Some(receiver));
    }
}

#[test]
fn alerts_of_one_part_and_place_come_in_one_message_and_a_page_silences_its_tickets() {
    let manager = Alertmanager::start(|text| text);
    manager.fire("IronrootCaCannotSign", "page", "signing", "a:9988");
    manager.fire("IronrootSigningBurnsFast", "page", "signing", "a:9988");
    manager.fire("IronrootTokenQueue", "ticket", "signing", "a:9988");
    manager.fire("IronrootDevicesWait", "ticket", "fleet", "a:9988");
    manager.expect("pager", &["IronrootCaCannotSign", "IronrootSigningBurnsFast"]);
    manager.expect("tickets", &["IronrootDevicesWait"]);
    // Another place's ticket of that part is one of its own; when it has come, the silenced one would have.
    manager.fire("IronrootTokenQueue", "ticket", "signing", "b:9988");
    manager.expect("tickets", &["IronrootTokenQueue"]);
    let tickets = manager.heard().into_iter().filter(|message| message.receiver == "tickets");
    let tickets: Vec<String> = tickets.flat_map(|message| message.alerts).collect();
    assert_eq!(tickets, ["IronrootDevicesWait", "IronrootTokenQueue"], "the one of a:9988 is silenced by the page");
}

#[test]
fn a_token_that_is_gone_pages_once_and_not_for_all_that_follows_from_it() {
    let manager = Alertmanager::start(|text| text);
    manager.fire("IronrootTokenGone", "page", "signing", "a:9988");
    manager.expect("pager", &["IronrootTokenGone"]);
    for (follows, part) in [("IronrootRotationFails", "authority"), ("IronrootAuthorityEnds", "authority")] {
        manager.fire(follows, "page", part, "a:9988");
    }
    manager.fire("IronrootServerDown", "page", "server", "b:9988");
    manager.expect("pager", &["IronrootServerDown"]);
    let pages: Vec<String> = manager.heard().into_iter().flat_map(|message| message.alerts).collect();
    assert_eq!(pages, ["IronrootTokenGone", "IronrootServerDown"]);
}

/// The line of the handbook.
#[test]
fn a_maintenance_that_is_announced_silences_everything_until_it_is_called_off() {
    let handbook = include_str!("../../docs/handbook.md");
    let words = ["silence", "add", "part=~\".+\"", "--duration", "2h", "--comment", "upgrade"];
    assert!(handbook.contains(&format!("amtool {}", words.join(" "))));
    let manager = Alertmanager::start(|text| text);
    let silence = manager.amtool(&[&words[..], &["--author", "lab"]].concat());
    manager.fire("IronrootServerDown", "page", "server", "a:9988");
    let suppressed = || manager.amtool(&["alert", "query", "--silenced", "-o", "simple"]);
    expect_within(DEADLINE, "it is silenced", suppressed, || suppressed().contains("IronrootServerDown"));
    assert_eq!(manager.heard(), []);
    manager.amtool(&["silence", "expire", silence.trim()]);
    manager.expect("pager", &["IronrootServerDown"]);
}

#[test]
fn in_the_hours_of_maintenance_nobody_is_paged_and_tickets_come() {
    let window = "      - weekdays: [sunday]\n        times: [{start_time: \"03:00\", end_time: \"04:00\"}]\n";
    let manager = Alertmanager::start(|text| {
        assert!(text.contains(window), "{text}");
        text.replace(window, "      - times: [{start_time: \"00:00\", end_time: \"24:00\"}]\n")
    });
    manager.fire("IronrootServerDown", "page", "server", "a:9988");
    manager.fire("IronrootDevicesWait", "ticket", "fleet", "a:9988");
    manager.expect("tickets", &["IronrootDevicesWait"]);
    manager.fire("IronrootEntriesDrift", "ticket", "entries", "a:9988");
    manager.expect("tickets", &["IronrootEntriesDrift"]);
    assert!(manager.heard().iter().all(|message| message.receiver == "tickets"), "{:?}", manager.heard());
}
