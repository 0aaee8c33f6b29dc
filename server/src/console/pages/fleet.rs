//! The fleet: what matters in tiles, and a row for each device.

use maud::{Markup, html};

use super::frame::{Place, frame};
use super::words::{ago, left};
use crate::console::fleet::{AgentTold, BootTold, Fleet, MAX_ROWS, OtherAgent, Row, State, Wanted};

/// Rows that a browser lays out together, once they come into sight.
const ROWS_TOGETHER: usize = 100;
const HEAD: [&str; 7] = ["Device", "State", "Labels", "Boot", "Agent", "Last seen", "Certificate left"];

/// The page.
pub fn fleet(fleet: &Fleet, wanted: &Wanted, now: i64) -> Markup {
    let status = &fleet.status;
    frame(
        &format!("Fleet of {}", status.trust_domain),
        Place::Fleet,
        Some(fleet.revision()),
        &html! {
            div #tiles { (tiles(fleet)) }
            (search(wanted))
            p #changed hidden { a href="" { "The fleet has changed: show it as it is now" } }
            p.count { (counted(fleet.rows.len(), "device", "devices")) @if !is_everything(wanted) { " found" }
                @if fleet.rows.len() >= MAX_ROWS { "; there are more: ask for a state or a label" } }
            @if fleet.rows.is_empty() { (nothing(wanted)) }
            @else {
                div.rows role="table" aria-rowcount=(fleet.rows.len()) {
                    div.row.head role="row" { @for name in HEAD { span role="columnheader" { (name) } } }
                    @for together in fleet.rows.chunks(ROWS_TOGETHER) {
                        div.together role="rowgroup" {
                            @for device in together { (row(device, now)) }
                        }
                    }
                }
            }
            @if !fleet.others.is_empty() { (others(&fleet.others, now)) }
        },
    )
}

/// What matters, as numbers, and what is wrong first.
pub fn tiles(fleet: &Fleet) -> Markup {
    let s = &fleet.status;
    html! {
        @for trouble in &s.troubles { p.trouble role="alert" { b { (trouble.what) } ": " (trouble.why) } }
        div.tiles {
            (tile("?state=enrolled", s.devices_enrolled, "enrolled", false))
            (tile("?state=pending", s.devices_pending, "wait for approval", s.devices_pending > 0))
            (tile("?state=banned", s.devices_banned, "banned", false))
            (tile("./", s.devices_booted_otherwise, "booted what no policy allows", s.devices_booted_otherwise > 0))
            (tile("./", s.devices_suspected, "share a chip, it seems", s.devices_suspected > 0))
            (tile("./", s.agents_late + s.agents_expired, "agents late or gone", s.agents_late + s.agents_expired > 0))
            (tile("entries", s.entries, "entries", false))
        }
    }
}

/// Which element a device's row is.
pub fn row_id(device: &Row) -> String {
    format!("d-{}", device.ek_sha256)
}

/// A device.
pub fn row(device: &Row, now: i64) -> Markup {
    html! {
        div.row role="row" id=(row_id(device)) {
            span role="cell" { a href=(format!("devices/{}", device.ek_sha256)) { (device.name()) } }
            span role="cell" { (state(device.state)) @if device.suspected { " " b.bad { "two machines" } } }
            span role="cell" { @for (name, value) in &device.labels { span.label { (name) "=" (value) } } }
            span role="cell" { (boot(device.boot, now)) }
            @match &device.agent { Some(agent) => (of_agent(agent, device, now)), None => (without_agent(device, now)) }
        }
    }
}

fn of_agent(agent: &AgentTold, device: &Row, now: i64) -> Markup {
    html! {
        span role="cell" { (agent.version) }
        span role="cell" { (ago(device.last_seen.0, now)) }
        span role="cell" { @if agent.banned { b.bad { "banned" } } @else { (left(agent.ends_at, now)) } }
    }
}

fn without_agent(device: &Row, now: i64) -> Markup {
    html! {
        span role="cell" { "–" }
        span role="cell" { (ago(device.last_seen.0, now)) }
        span role="cell" { "–" }
    }
}

/// How it stands.
pub(super) fn state(state: State) -> Markup {
    html! { span class=(format!("state {}", state.word())) { (state.word()) } }
}

/// What is known of what it boots.
pub(super) fn boot(boot: BootTold, now: i64) -> Markup {
    html! {
        @match boot {
            BootTold::Nothing => "–",
            BootTold::Unchanged => "unchanged",
            BootTold::ChangedAt(at) => { b.warn { "changed " (ago(at, now)) } }
            BootTold::Otherwise => { b.bad { "no policy allows it" } }
        }
    }
}

fn tile(path: &str, number: i32, of: &str, matters: bool) -> Markup {
    html! { a.tile.matters[matters] href=(path) { b { (number) } " " (of) } }
}

fn search(wanted: &Wanted) -> Markup {
    let label = wanted.label.as_ref().map(|(name, value)| format!("{name}={value}")).unwrap_or_default();
    html! {
        form.search method="get" action="./" role="search" {
            label { "Search " input type="search" name="text" value=(wanted.text) placeholder="serial, label, version, digits of the hash" maxlength="256"; }
            label { "Label " input name="label" value=(label) placeholder="site=berlin" maxlength="512"; }
            label { "State " select name="state" {
                option value="" { "any" }
                @for state in [State::Enrolled, State::Pending, State::Banned] {
                    option value=(state.word()) selected[wanted.state == Some(state)] { (state.word()) }
                }
            } }
            button { "Show" }
            @if !is_everything(wanted) { a href="./" { "Show all" } }
        }
    }
}

fn nothing(wanted: &Wanted) -> Markup {
    html! {
        p.nothing {
            @if is_everything(wanted) { "No device is known yet. Enrol some: " code { "ironroot-server device import devices.csv" } }
            @else { "No device is like that." }
        }
    }
}

fn others(others: &[OtherAgent], now: i64) -> Markup {
    html! {
        h2 { "Agents without a device" }
        table {
            thead { tr { th { "SPIFFE ID" } th { "Proved itself by" } th { "Agent" } th { "Certificate left" } } }
            tbody { @for agent in others { tr {
                td.id { (agent.id) }
                td { (agent.attestation_type) }
                td { (agent.told.version) }
                td { @if agent.told.banned { b.bad { "banned" } } @else { (left(agent.told.ends_at, now)) } }
            } } }
        }
    }
}

fn is_everything(wanted: &Wanted) -> bool {
    *wanted == Wanted::default()
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::fleet::Passing;

    fn device(serial: &str) -> Row {
        Row {
            ek_sha256: "5f1c2aff".repeat(8),
            serial: serial.into(),
            labels: vec![("site".into(), serial.into())],
            state: State::Enrolled,
            boot: BootTold::ChangedAt(40),
            suspected: false,
            last_seen: Passing(40),
            agent: Some(AgentTold { version: serial.into(), ends_at: 200, banned: false }),
        }
    }

    #[test]
    fn what_a_fleet_calls_itself_is_text_and_never_a_tag() {
        let evil = "<script>alert(1)</script>\"'&\u{1b}[31m";
        let shown = row(&device(evil), 100).into_string();
        assert!(!shown.contains("<script") && shown.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;"), "{shown}");
        let wanted = Wanted { text: evil.into(), label: Some((evil.into(), evil.into())), state: None };
        let page =
            fleet(&Fleet { status: Default::default(), rows: vec![device(evil)], others: Vec::new() }, &wanted, 100);
        assert_eq!(page.into_string().matches("<script").count(), 1, "the page's own");
    }

    #[test]
    fn a_changed_boot_says_when_and_a_fleet_without_devices_what_to_do() {
        assert!(
            row(&device("SN-1"), 100).into_string().contains("changed <time"),
            "{}",
            row(&device("SN-1"), 100).into_string()
        );
        let empty = Fleet { status: Default::default(), rows: Vec::new(), others: Vec::new() };
        assert!(fleet(&empty, &Wanted::default(), 1).into_string().contains("device import"));
        let searched = Wanted { text: "x".into(), ..Wanted::default() };
        assert!(fleet(&empty, &searched, 1).into_string().contains("No device is like that"));
    }
}
