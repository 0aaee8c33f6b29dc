//! A device: what is known of it, what it booted, which identities it hands out, what was done to it.

use ironroot_api::pb::device::ban::Reason;
use ironroot_api::pb::device::{Ban, BootState, DeviceRecord};
use ironroot_api::pb::types::{Agent, Entry};
use maud::{Markup, html};

use super::fleet::{boot, state};
use super::frame::{Place, frame};
use super::words::{ago, left, moment};
use crate::console::audit_file::AuditLine;
use crate::console::changes::Change;
use crate::console::fleet::{BootTold, State, name};
use crate::console::identities::{Identities, MAX_IDENTITIES, shown};

/// Digits of a PCR's value that are shown; the whole stands beside it.
const SHOWN_DIGITS: usize = 16;

/// What the page is made of.
#[derive(Debug)]
pub struct DevicePage {
    pub device: DeviceRecord,
    /// The agent that attested with it last, if it is still known.
    pub agent: Option<Agent>,
    pub identities: Identities,
    /// None if no audit file is read; why it cannot be, if so.
    pub audit: Option<Result<Vec<AuditLine>, String>>,
    /// What was just done, for whoever did it.
    pub done: Option<Change>,
    /// What forms carry, if things may be changed.
    pub form: Option<String>,
}

/// The page.
pub fn device(page: &DevicePage, now: i64) -> Markup {
    let device = &page.device;
    let called = name(&device.serial, &device.ek_sha256);
    frame(
        called,
        Place::Device,
        None,
        &html! {
            h1 { (called) " " (state(State::of(device))) }
            @if let Some(done) = page.done { p.done role="status" { (told(done)) } }
            @if device.suspected { p.trouble { "Two machines seem to show this device's chip: one of them is a copy." } }
            dl {
                dt { "EK SHA-256" } dd.id { (device.ek_sha256) }
                @if !device.manufacturer.is_empty() { dt { "TPM made by" } dd { (device.manufacturer) } }
                dt { "Labels" } dd { (labels(device)) }
                dt { "Known since" } dd { (moment(device.created_at)) }
                dt { "Last attested" } dd { (ago(device.last_attested_at, now)) }
                dt { "Last seen" } dd { (ago(device.last_seen_at.max(device.last_attested_at), now)) }
                dt { "Boot" } dd { (boot(BootTold::of(device), now)) }
                @if let Some(agent) = &page.agent { (of_agent(agent, now)) }
            }
            @if let Some(ban) = &device.ban { (of_ban(ban)) }
            @if let Some(form) = &page.form { (forms(device, form)) }
            (identities(&page.identities))
            (boots(&device.boots))
            @if let Some(audit) = &page.audit { (of_audit(audit)) }
        },
    )
}

fn told(done: Change) -> &'static str {
    match done {
        Change::Approve => "Approved: it may attest from now on.",
        Change::Ban => "Banned: it may not attest, and its agents are shut out.",
    }
}

fn labels(device: &DeviceRecord) -> Markup {
    let mut labels: Vec<_> = device.labels.iter().collect();
    labels.sort();
    html! { @if labels.is_empty() { "none" } @for (name, value) in labels { span.label { (name) "=" (value) } } }
}

fn of_agent(agent: &Agent, now: i64) -> Markup {
    html! {
        dt { "Agent" } dd.id { (shown(agent.id.as_ref())) @if agent.banned { " " b.bad { "banned" } } }
        dt { "Version" } dd { (agent.agent_version) }
        dt { "Certificate left" } dd { (left(agent.x509svid_expires_at, now)) }
        dt { "Selectors" } dd { @for selector in &agent.selectors { span.label { (selector.r#type) ":" (selector.value) } } }
    }
}

fn of_ban(ban: &Ban) -> Markup {
    html! {
        h2 { "Banned" }
        p { (moment(ban.at)) ", "
            @match ban.reason() {
                Reason::Administrator => { "by " (ban.by) }
                Reason::RunsTwice => "since its chip runs twice: one of two is a copy",
                Reason::Unspecified => "for a reason that was not noted",
            }
        }
        @if !ban.sightings.is_empty() {
            ul { @for seen in &ban.sightings { li { (moment(seen.at)) " " code { (seen.address) } " " (seen.what) } } }
        }
    }
}

fn forms(device: &DeviceRecord, form: &str) -> Markup {
    html! {
        @match State::of(device) {
            State::Pending => { (confirm(device, form, "approve", "Approve")) (confirm(device, form, "ban", "Ban")) }
            State::Enrolled => (confirm(device, form, "ban", "Ban")),
            State::Banned => p { "To let it in again: " code { "device delete" } ", " code { "agent evict" } ", and import it anew." },
        }
    }
}

fn confirm(device: &DeviceRecord, form: &str, path: &str, verb: &str) -> Markup {
    let called = name(&device.serial, &device.ek_sha256);
    html! {
        form.confirm method="post" action=(format!("{}/{path}", device.ek_sha256)) {
            input type="hidden" name="form" value=(form);
            label { "Type " code { (called) } " " input name="name" required autocomplete="off" spellcheck="false" maxlength="256"; }
            button class=(path) { (verb) }
        }
    }
}

fn identities(identities: &Identities) -> Markup {
    html! {
        h2 { "Identities" }
        @if !identities.groups.is_empty() {
            p { "It is in the groups " @for group in &identities.groups { span.label.id { (shown(group.spiffe_id.as_ref())) } } }
        }
        @if identities.workloads.is_empty() { p.nothing { "No entry gives its workloads an identity." } }
        @else {
            table {
                thead { tr { th { "SPIFFE ID" } th { "Selectors" } th { "Entry" } } }
                tbody { @for entry in &identities.workloads { (identity(entry)) } }
            }
            @if identities.more { p { "The first " (MAX_IDENTITIES) " are shown." } }
        }
    }
}

fn identity(entry: &Entry) -> Markup {
    html! { tr {
        td.id { (shown(entry.spiffe_id.as_ref())) }
        td { @for selector in &entry.selectors { span.label { (selector.r#type) ":" (selector.value) } } }
        td.id { (entry.id) }
    } }
}

fn boots(boots: &[BootState]) -> Markup {
    html! {
        h2 { "Boots" }
        @if boots.is_empty() { p.nothing { "Nothing is known of what it boots." } }
        @for boot in boots { (of_boot(boot)) }
    }
}

fn of_boot(boot: &BootState) -> Markup {
    let mut pcrs: Vec<_> = boot.pcrs.iter().collect();
    pcrs.sort();
    html! {
        section.boot {
            h3 { (moment(boot.first_at)) @if boot.last_at != boot.first_at { " to " (moment(boot.last_at)) } }
            @if boot.changes.is_empty() { p { "The first that is known." } }
            @else { ul { @for change in &boot.changes { li.warn { (change) } } } }
            @if let Some(secure_boot) = &boot.secure_boot {
                p { "Secure Boot " @if secure_boot.enabled { "is on" } @else { b.bad { "is off" } }
                    @if secure_boot.dma_unprotected { "; " b.bad { "memory is open to devices" } } }
            }
            @if !boot.missing.is_empty() { p { (boot.missing) } }
            @if !boot.command_line.is_empty() { p { "Kernel: " code { (boot.command_line) } } }
            details { summary { (boot.bank) " registers" }
                dl { @for (index, value) in pcrs { dt { "PCR " (index) } dd.id title=(value) { (value.get(..SHOWN_DIGITS).unwrap_or(value)) "…" } } }
            }
        }
    }
}

fn of_audit(audit: &Result<Vec<AuditLine>, String>) -> Markup {
    html! {
        h2 { "Audit" }
        @match audit {
            Err(why) => p.trouble { "The audit's file cannot be read: " (why) },
            Ok(lines) if lines.is_empty() => p.nothing { "Its newest lines say nothing of this device." },
            Ok(lines) => table {
                thead { tr { th { "Time" } th { "What" } th { "Outcome" } th { "By" } th { "About" } } }
                tbody { @for line in lines { tr {
                    td { (line.time) } td { (line.method) } td { (line.status) } td { (line.caller) } td.id { (line.object) }
                } } }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(form: Option<&str>) -> DevicePage {
        let boot = BootState {
            first_at: 1,
            last_at: 2,
            changes: vec!["PCR 7: Secure Boot was on, is off".into()],
            pcrs: [(7, "ab".repeat(32))].into(),
            ..BootState::default()
        };
        DevicePage {
            device: DeviceRecord { ek_sha256: "5f1c2aff".repeat(8), boots: vec![boot], ..DeviceRecord::default() },
            agent: None,
            identities: Identities::default(),
            audit: Some(Err("it is gone".into())),
            done: None,
            form: form.map(str::to_owned),
        }
    }

    #[test]
    fn a_boot_says_what_changed_and_a_file_that_cannot_be_read_why() {
        let shown = device(&page(None), 9).into_string();
        assert!(shown.contains("Secure Boot was on, is off") && shown.contains("it is gone"), "{shown}");
        assert!(!shown.contains("<form"), "it only shows");
    }

    #[test]
    fn a_device_that_waits_can_be_approved_or_banned_and_each_form_carries_the_sessions_secret() {
        let shown = device(&page(Some("sEcReT")), 9).into_string();
        assert_eq!((shown.matches("<form").count(), shown.matches("value=\"sEcReT\"").count()), (2, 2));
        let mut banned = page(Some("sEcReT"));
        banned.device.state = ironroot_api::pb::device::DeviceState::Banned.into();
        assert!(!device(&banned, 9).into_string().contains("<form"));
    }
}
