//! The log of what was booted, beside a quote.

use ironroot_attest::event_log::EventLogError;
use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::{AttestedTpm, BootLog as Told, Claim, EventLogPolicy, PcrHash, PcrSelection};
use ironroot_software_tpm::{BootLog, kind};

use crate::attempt::{Attempt, refusal};

fn booted(log: &BootLog, policy: EventLogPolicy) -> Attempt {
    let mut attempt = Attempt::new();
    attempt.tpm.boot(log);
    attempt.expectation.event_log = policy;
    attempt
}

fn texts(attested: &AttestedTpm, begin: &str) -> Vec<String> {
    attested.selectors().iter().map(ToString::to_string).filter(|text| text.starts_with(begin)).collect()
}

#[test]
fn a_log_that_leads_to_the_quote_gives_the_selectors_of_secure_boot() {
    for (enabled, expected) in [(true, "tpm2:secureboot:on"), (false, "tpm2:secureboot:off")] {
        let attempt = booted(&BootLog::booted(enabled, b"loader"), EventLogPolicy::Verified);
        let attested = attempt.verdict(|_| {}).expect("accepted");
        let selectors = texts(&attested, "tpm2:secureboot:");
        assert_eq!(selectors.len(), 5, "{selectors:?}");
        assert!(selectors.contains(&expected.to_owned()), "{selectors:?}");
        for variable in ["pk", "kek", "db", "dbx"] {
            assert_eq!(texts(&attested, &format!("tpm2:secureboot:{variable}:sha256:")).len(), 1, "{selectors:?}");
        }
        assert_eq!(texts(&attested, "tpm2:debug:"), ["tpm2:debug:off"]);
        assert_eq!(attested.boot().secure_boot().map(|state| state.enabled), Some(enabled));
        assert_eq!((attested.boot().bank, attested.boot().pcrs.len()), (PcrHash::Sha256, 4));
    }
}

//= TPM-43
#[test]
fn a_log_that_lies_is_refused_or_counts_as_none_as_the_server_says() {
    let (honest, lie) = (BootLog::booted(false, b"loader"), BootLog::booted(true, b"loader"));
    let lies = |policy| {
        let mut attempt = booted(&honest, policy);
        attempt.tpm.event_log = Some(lie.bytes().to_vec());
        attempt.verdict(|_| {})
    };
    for policy in [EventLogPolicy::Verified, EventLogPolicy::Required] {
        let differs = Refusal::EventLog(EventLogError::Differs { pcr: 7 });
        assert_eq!(refusal(lies(policy)), differs);
    }
    let attested = lies(EventLogPolicy::Lenient).expect("as if it had sent none");
    assert_eq!(attested.boot().log, Told::Unusable(EventLogError::Differs { pcr: 7 }));
    assert_eq!(texts(&attested, "tpm2:secureboot:"), <[String; 0]>::default());
    let attested = lies(EventLogPolicy::Ignored).expect("nobody asked");
    assert_eq!(attested.boot().log, Told::NotAsked);
}

#[test]
fn a_device_without_a_log_attests_without_its_selectors_unless_one_is_required() {
    let silent = |policy| {
        let mut attempt = booted(&BootLog::booted(true, b"loader"), policy);
        attempt.tpm.event_log = None;
        attempt.verdict(|_| {})
    };
    for policy in [EventLogPolicy::Lenient, EventLogPolicy::Verified] {
        let attested = silent(policy).expect("accepted");
        assert_eq!(attested.boot().log, Told::NotSent);
        assert_eq!(texts(&attested, "tpm2:secureboot:"), <[String; 0]>::default());
        assert_eq!(texts(&attested, "tpm2:pcr:").len(), 4, "what is quoted is proven all the same");
    }
    assert_eq!(refusal(silent(EventLogPolicy::Required)), Refusal::NoEventLog);
    // It said that it has one, and then sends none.
    let mut attempt = booted(&BootLog::booted(true, b"loader"), EventLogPolicy::Required);
    assert_eq!(refusal(attempt.verdict_on(|response| response.event_log = None)), Refusal::NoEventLog);
    attempt.expectation.event_log = EventLogPolicy::Verified;
    attempt.verdict_on(|response| response.event_log = None).expect("accepted");
}

#[test]
fn a_log_is_asked_for_only_of_whoever_offers_one_and_where_there_is_something_to_compare_it_with() {
    let asked = |offers: bool, policy, pcrs: PcrSelection| {
        let mut attempt = booted(&BootLog::booted(true, b"loader"), policy);
        attempt.tpm.event_log = attempt.tpm.event_log.filter(|_| offers);
        attempt.expectation.pcrs = pcrs;
        attempt.begin().expect("challenged").1.event_log
    };
    let pcrs: PcrSelection = "0,7".parse().expect("legal");
    for policy in [EventLogPolicy::Lenient, EventLogPolicy::Verified] {
        assert!(asked(true, policy, pcrs));
        assert!(!asked(false, policy, pcrs), "an older agent does not know the question");
        assert!(!asked(true, policy, PcrSelection::NONE));
    }
    assert!(!asked(true, EventLogPolicy::Ignored, pcrs));
}

/// As agents and servers of before this field speak.
#[test]
fn older_agents_and_older_servers_still_attest() {
    let attempt = booted(&BootLog::booted(true, b"loader"), EventLogPolicy::Verified);
    let evidence = String::from_utf8(attempt.tpm.evidence().to_json()).expect("text");
    let older_agent = evidence.replace(r#","event_log":true"#, "");
    assert_ne!(older_agent, evidence);
    Claim::parse(older_agent.as_bytes()).expect("understood");
    let mut older_server = booted(&BootLog::booted(true, b"loader"), EventLogPolicy::Ignored);
    let (_, challenge) = older_server.begin().expect("challenged");
    assert!(!String::from_utf8(challenge.to_json()).expect("text").contains("event_log"), "an older agent reads it");
    older_server.tpm.event_log = None;
    older_server.verdict(|_| {}).expect("accepted");
}

#[test]
fn a_log_without_digests_of_the_quoted_bank_is_no_lie_and_no_log() {
    let mut attempt = booted(&BootLog::booted(true, b"loader"), EventLogPolicy::Verified);
    // As old firmware writes it: no header, SHA-1 alone.
    let mut old = [4u32.to_le_bytes(), kind::IPL.to_le_bytes()].concat();
    old.extend([7; 20]);
    old.extend(0u32.to_le_bytes());
    attempt.tpm.event_log = Some(old);
    let other = EventLogError::OtherBank { bank: PcrHash::Sha256 };
    assert_eq!(attempt.verdict(|_| {}).expect("accepted").boot().log, Told::Unusable(other.clone()));
    attempt.expectation.event_log = EventLogPolicy::Required;
    assert_eq!(refusal(attempt.verdict(|_| {})), Refusal::EventLog(other));
}

//= TPM-31
#[test]
fn logs_that_are_cut_off_or_no_logs_are_refused_by_name() {
    let mut attempt = booted(&BootLog::booted(true, b"loader"), EventLogPolicy::Verified);
    let whole = attempt.tpm.event_log.clone().expect("a log");
    for (log, name) in [
        (whole[..whole.len() - 1].to_vec(), "truncated"),
        (vec![0xff; 200], "bytes of data"),
        (Vec::new(), "truncated"),
        (whole[..65].to_vec(), "another PCR"),
    ] {
        attempt.tpm.event_log = Some(log);
        let refused = refusal(attempt.verdict(|_| {}));
        assert!(matches!(&refused, Refusal::EventLog(_)) && refused.to_string().contains(name), "{refused}");
    }
}
