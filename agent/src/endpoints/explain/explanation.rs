//! What is said of a process, made of what was found and what is published. Pure.

use std::error::Error;

use ironroot_api::pb::explain::Explanation;
use ironroot_api::pb::explain::explanation::{Entry, Withheld};
use ironroot_api::utc;
use ironroot_attest::workload::WithheldSelector;
use ironroot_attest::{Selector, SelectorSet};
use ironroot_shell::describe;

use crate::endpoints::serving::Found;
use crate::endpoints::shown::shown;
use crate::identities::{Identities, Nearest};
use crate::report::{Report, Stands};
use crate::server_answers::EntryTerms;
use crate::trusted_time::ClockStanding;

/// Most entries of a process's own that are told.
const MAX_OWN: usize = 100;
/// Entries that nearly match: whoever looks for a missing selector needs the first one or two.
const MAX_NEAREST: usize = 5;
/// Most selectors told of the process, or of one entry. Processes have at most a thousand groups.
const MAX_SELECTORS: usize = 2_000;

/// The state of an entry whose key is in hardware.
const IN_HARDWARE: &str = "key in hardware";

/// Who is told.
#[derive(Clone, Copy)]
pub(super) enum Told<'a> {
    /// The process itself.
    Caller,
    /// Somebody at the admin socket, and how the agent is.
    Administrator(&'a Report),
}

/// All but the process's numbers. `now` is the clock that ends are on.
pub(super) fn explanation(all: &Identities, found: &Found, now: i64, told: Told<'_>) -> Explanation {
    let selectors = &found.selectors;
    let entries = own(all, selectors, now);
    let nearest = match told {
        Told::Caller => Vec::new(),
        Told::Administrator(_) => all.nearest_few(selectors, MAX_NEAREST).iter().map(near).collect(),
    };
    Explanation {
        selectors: selectors.iter().take(MAX_SELECTORS).map(shown).collect(),
        withheld: found.withheld.iter().map(withheld).chain(unwanted(all, found)).collect(),
        reasons: reasons(all, &entries, found, told),
        entries,
        nearest,
        ..Explanation::default()
    }
}

fn withheld(WithheldSelector { selector, why }: &WithheldSelector) -> Withheld {
    Withheld { selectors: (*selector).to_owned(), reason: describe(why as &dyn Error).to_string() }
}

/// The executable is looked at where an entry asks for it, and of nobody else.
fn unwanted(all: &Identities, found: &Found) -> Option<Withheld> {
    let is_told = found.selectors.iter().any(Selector::is_of_executable);
    let is_wanted = is_told || all.demand().concerns(&found.selectors);
    let reason = "no entry asks for it of a process with these selectors, so it is not looked at".to_owned();
    (!is_wanted).then(|| Withheld { selectors: "unix:path".to_owned(), reason })
}

fn own(all: &Identities, selectors: &SelectorSet, now: i64) -> Vec<Entry> {
    let first_of_hints = all.entries_for(selectors);
    let state = |terms: &EntryTerms, end: Option<i64>| match end {
        _ if !first_of_hints.iter().any(|first| first.id == terms.id) => "hidden",
        Some(end) if now < end => "served",
        Some(_) => "expired",
        None if terms.on_demand => "on demand",
        None => "unsigned",
    };
    let held = all.held_for(selectors).into_iter().map(|held| Entry {
        state: state(held.terms, held.end).to_owned(),
        ends_at: held.not_after.unwrap_or_default(),
        ..entry(held.terms)
    });
    let in_hardware = all.hardware_entries_for(selectors).into_iter();
    let in_hardware = in_hardware.map(|terms| Entry { state: IN_HARDWARE.to_owned(), ..entry(terms) });
    held.chain(in_hardware).take(MAX_OWN).collect()
}

fn near(near: &Nearest<'_>) -> Entry {
    Entry {
        lacks: near.lacks.iter().take(MAX_SELECTORS).map(|selector| shown(selector)).collect(),
        ..entry(near.terms)
    }
}

fn entry(terms: &EntryTerms) -> Entry {
    let selectors = terms.selectors.iter().take(MAX_SELECTORS).map(shown).collect();
    Entry { id: terms.id.clone(), spiffe_id: terms.spiffe_id.to_string(), selectors, ..Entry::default() }
}

/// Why nothing is served; empty if something is.
fn reasons(all: &Identities, entries: &[Entry], found: &Found, told: Told<'_>) -> Vec<String> {
    if all.bundle().is_some() && entries.iter().any(|entry| entry.state == "served") {
        return Vec::new();
    }
    let about_it = of_the_process(all, entries, found);
    match told {
        Told::Caller => about_it,
        Told::Administrator(report) => about_it.into_iter().chain(of_the_agent(all, report)).collect(),
    }
}

fn of_the_process(all: &Identities, entries: &[Entry], found: &Found) -> Vec<String> {
    if all.bundle().is_none() {
        return vec!["the agent has had no answer of its server, and found none in its cache".to_owned()];
    }
    let last_end = entries.iter().filter(|entry| entry.state == "expired").map(|entry| entry.ends_at).max();
    let mut reasons = Vec::new();
    if entries.is_empty() {
        reasons.push("it has all selectors of no entry that this agent holds".to_owned());
    } else if entries.iter().all(|entry| entry.state == IN_HARDWARE) {
        reasons.push(
            "its entries ask for a key in hardware (ironroot:hardware_key): ironroot-agent deliver has one certified (-pkcs11, -tpm), and no \
             API hands one out"
                .to_owned(),
        );
    } else if let Some(end) = last_end {
        reasons.push(format!("its identities have ended, the last one at {}, and could not be renewed", utc(end)));
    } else {
        reasons.push("the server has signed no SVID for its entries yet".to_owned());
    }
    if entries.is_empty() && !found.withheld.is_empty() {
        reasons.push("an entry asks for what could not be told of it (see what was left out)".to_owned());
    }
    reasons
}

fn of_the_agent(all: &Identities, report: &Report) -> Vec<String> {
    let mut reasons = Vec::new();
    match report.stands {
        Stands::Attested => {}
        Stands::New => reasons.push("the agent has not attested to its server".to_owned()),
        Stands::Refused => reasons.push("the server takes the agent's certificate no more".to_owned()),
        Stands::Evicted => reasons.push("the server does not know the agent any more (agent evict)".to_owned()),
        Stands::Banned => reasons.push("the server bans the agent (agent ban)".to_owned()),
    }
    if let Some(failure) = report.last_failure.as_ref().filter(|_| report.failures > 0) {
        let last = if report.synced_unix == 0 { "never".to_owned() } else { utc(report.synced_unix) };
        let server = if report.server.is_empty() { "its server" } else { &report.server };
        reasons.push(format!("the agent is not in sync with {server} (last: {last}): {failure}"));
    }
    if all.bundle().is_some() && all.entries().next().is_none() {
        reasons.push("the agent holds no entry at all: none names it, or one of its nodes' IDs, as parent".to_owned());
    }
    reasons.extend(report.clock.and_then(of_the_clock));
    reasons
}

fn of_the_clock(clock: ClockStanding) -> Option<String> {
    let why = match clock {
        ClockStanding::Confirmed => return None,
        ClockStanding::Unconfirmed => "no server has confirmed this device's clock since the start",
        ClockStanding::Contradicted => "the server's time and this device's clock differ",
    };
    Some(format!("the clock is in doubt: {why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ironroot_api::TrustDomain;
    use ironroot_attest::workload::Withheld as Why;

    use super::*;
    use crate::identities::Identity;
    use crate::server_answers::TrustBundle;

    fn all(unsigned: Vec<EntryTerms>) -> Identities {
        let domain = TrustDomain::new("td").expect("legal");
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).expect("signs").der().to_vec();
        let bundle = Arc::new(TrustBundle::new(&domain, [(&der[..], false)]).expect("an authority"));
        let none: Vec<Arc<Identity>> = Vec::new();
        let all = Identities::try_new(domain, none, bundle).expect("sound");
        all.with_unsigned(unsigned.into_iter().map(Arc::new).collect())
    }

    fn found(texts: &[&str], withheld: Vec<WithheldSelector>) -> Found {
        let selectors = texts.iter().map(|text| text.parse().expect("legal")).collect();
        Found { selectors, withheld, replaced_on_disk: None, is_kept: false }
    }

    fn entry_of(path: &str, texts: &[&str]) -> EntryTerms {
        let selectors = texts.iter().map(|text| text.parse().expect("legal")).collect();
        EntryTerms { selectors, ..EntryTerms::example(&format!("e{path}"), path) }
    }

    fn good() -> Report {
        Report { stands: Stands::Attested, clock: Some(ClockStanding::Confirmed), ..Report::default() }
    }

    #[test]
    fn an_administrator_is_told_what_is_lacking_and_a_caller_nothing_of_entries_that_are_not_its_own() {
        let all = all(vec![entry_of("/db", &["unix:gid:1000", "unix:uid:7"]), entry_of("/web", &["unix:uid:8"])]);
        let found = found(&["unix:uid:7", "docker:env:KEY=secret"], Vec::new());
        let told = explanation(&all, &found, 0, Told::Administrator(&good()));
        assert_eq!(told.selectors, ["docker:env:KEY=...", "unix:uid:7"]);
        let near: Vec<_> = told.nearest.iter().map(|entry| (entry.spiffe_id.as_str(), entry.lacks.clone())).collect();
        let lacking = |text: &str| vec![text.to_owned()];
        let expected = [("spiffe://td/db", lacking("unix:gid:1000")), ("spiffe://td/web", lacking("unix:uid:8"))];
        assert_eq!(near, expected);
        assert_eq!(told.reasons, ["it has all selectors of no entry that this agent holds"]);
        let told = explanation(&all, &found, 0, Told::Caller);
        assert!(told.nearest.is_empty() && told.entries.is_empty(), "{told:?}");
        let told = format!("{told:?}");
        assert!(!told.contains("/db") && !told.contains("unix:gid") && !told.contains("uid:8"), "{told}");
    }

    #[test]
    fn an_executable_that_no_entry_asks_for_is_named_with_the_reason() {
        let left_out = |asked: &[&str], texts: &[&str]| {
            let told = explanation(&all(vec![entry_of("/web", asked)]), &found(texts, Vec::new()), 0, Told::Caller);
            told.withheld.into_iter().map(|left| (left.selectors, left.reason)).collect::<Vec<_>>()
        };
        let unasked = left_out(&["unix:uid:8"], &["unix:uid:8"]);
        assert_eq!(unasked.len(), 1, "{unasked:?}");
        assert!(unasked[0].0 == "unix:path" && unasked[0].1.starts_with("no entry asks for it"), "{unasked:?}");
        assert_eq!(left_out(&["unix:uid:9", "unix:path:/bin/sh"], &["unix:uid:8"]).len(), 1, "another user's entry");
        assert_eq!(left_out(&["unix:uid:8", "unix:path:/bin/sh"], &["unix:uid:8"]), []);
        assert_eq!(left_out(&["unix:uid:8"], &["unix:uid:8", "unix:path:/bin/sh"]), []);
    }

    #[test]
    fn each_cause_of_serving_nothing_is_named() {
        let held = all(vec![entry_of("/web", &["unix:uid:8"])]);
        let starting = Identities::starting(TrustDomain::new("td").expect("legal"));
        let reasons = |all: &Identities, texts: &[&str], withheld: Vec<WithheldSelector>, report: &Report| {
            explanation(all, &found(texts, withheld), 0, Told::Administrator(report)).reasons.join("; ")
        };
        let failing = Report { failures: 1, last_failure: Some("no route".into()), server: "s:1".into(), ..good() };
        let standing = |stands| Report { stands, ..good() };
        let clock = |clock| Report { clock: Some(clock), ..good() };
        let hidden = vec![WithheldSelector { selector: "unix:path", why: Why::OtherMounts }];
        for (said, part) in [
            (reasons(&starting, &["unix:uid:8"], Vec::new(), &good()), "no answer of its server"),
            (reasons(&held, &["unix:uid:8"], Vec::new(), &good()), "has signed no SVID"),
            (
                reasons(
                    &all(vec![entry_of("/web", &["unix:uid:8", "ironroot:hardware_key"])]),
                    &["unix:uid:8"],
                    Vec::new(),
                    &good(),
                ),
                "ask for a key in hardware",
            ),
            (reasons(&held, &["unix:uid:9"], Vec::new(), &failing), "not in sync with s:1 (last: never): no route"),
            (reasons(&held, &["unix:uid:9"], hidden, &good()), "could not be told of it"),
            (reasons(&all(Vec::new()), &["unix:uid:9"], Vec::new(), &good()), "holds no entry at all"),
            (reasons(&held, &["unix:uid:9"], Vec::new(), &standing(Stands::New)), "has not attested"),
            (
                reasons(&held, &["unix:uid:9"], Vec::new(), &standing(Stands::Refused)),
                "takes the agent's certificate no",
            ),
            (reasons(&held, &["unix:uid:9"], Vec::new(), &standing(Stands::Evicted)), "does not know the agent"),
            (reasons(&held, &["unix:uid:9"], Vec::new(), &standing(Stands::Banned)), "bans the agent"),
            (
                reasons(&held, &["unix:uid:9"], Vec::new(), &clock(ClockStanding::Unconfirmed)),
                "no server has confirmed",
            ),
            (reasons(&held, &["unix:uid:9"], Vec::new(), &clock(ClockStanding::Contradicted)), "differ"),
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn what_is_told_is_bounded() {
        let many = |n| entry_of(&format!("/e{n}"), &["unix:uid:8"]);
        let all = all((0..MAX_OWN + 50).map(many).collect());
        let of = |texts: &[&str]| explanation(&all, &found(texts, Vec::new()), 0, Told::Administrator(&good()));
        assert_eq!(of(&["unix:uid:8"]).entries.len(), MAX_OWN);
        assert_eq!(of(&["unix:uid:9"]).nearest.len(), MAX_NEAREST);
    }
}
