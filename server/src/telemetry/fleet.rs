//! Agents, devices, entries, and other trust domains: how many, never which.

use ironroot_shell::telemetry::{Kind, Page};

use super::Sources;

pub(super) fn write(page: &mut Page, sources: &Sources, now_unix: i64) {
    let server = &sources.server;
    let agents = server.registry.agent_census(now_unix, sources.late_below_seconds());
    let mut states = page.own(
        "agents",
        Kind::Gauge,
        "Agents: late ones should have renewed by now, expired ones are away for longer",
    );
    for (state, count) in
        [("current", agents.current), ("late", agents.late), ("expired", agents.expired), ("banned", agents.banned)]
    {
        states.sample(&[("state", state)], count as f64);
    }
    let devices = server.devices.census();
    let mut states = page.own("devices", Kind::Gauge, "Devices of the registry, by whether they may attest");
    for (state, count) in [("pending", devices.pending), ("enrolled", devices.enrolled), ("banned", devices.banned)] {
        states.sample(&[("state", state)], count as f64);
    }
    let mut boots =
        page.own("device_boots", Kind::Gauge, "Enrolled devices, by whether a PCR policy is about them and met");
    for (boot, count) in [
        ("as_wanted", devices.boot_as_wanted),
        ("otherwise", devices.boot_otherwise),
        ("unjudged", devices.boot_unjudged),
    ] {
        boots.sample(&[("boot", boot)], count as f64);
    }
    page.own("device_boots_changed_total", Kind::Counter, "Devices that proved another boot than the time before")
        .sample(&[], server.devices.boots_changed() as f64);
    page.own("devices_suspected", Kind::Gauge, "Devices whose chip two machines seem to show")
        .sample(&[], devices.suspected as f64);
    page.own("entries", Kind::Gauge, "Registration entries").sample(&[], server.registry.entry_census() as f64);
    write_federation(page, sources);
}

fn write_federation(page: &mut Page, sources: &Sources) {
    let (federation, fetched) = (&sources.server.federation, &sources.fetched);
    page.spire_calls(
        "bundle_manager.fetch.federated_bundle",
        "Fetches of other trust domains' bundles",
        &fetched.fetches,
    );
    if fetched.updates.count() > 0 {
        page.spire(
            "bundle_manager.update.federated_bundle",
            Kind::Counter,
            "Bundles of other trust domains that changed",
        )
        .sample(&[], fetched.updates.count() as f64);
    }
    page.own("federated_bundles", Kind::Gauge, "Bundles of other trust domains")
        .sample(&[], federation.count_bundles() as f64);
    page.own("federation_failing", Kind::Gauge, "Trust domains whose bundle could not be fetched the last time")
        .sample(&[], fetched.failing() as f64);
}
