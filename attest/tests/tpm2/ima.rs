//! The quote beside which a list of measured files is asked for.

use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::{EventLogPolicy, ImaState};
use ironroot_software_tpm::{BootLog, ImaList};

use crate::attempt::{Attempt, refusal};

fn measured(policy: EventLogPolicy, has_list: bool) -> Attempt {
    let mut attempt = Attempt::new();
    attempt.tpm.boot(&BootLog::booted(true, b"loader"));
    attempt.tpm.measured(&ImaList::begun(BootLog::booted(true, b"loader").pcrs()));
    attempt.tpm.ima_list = attempt.tpm.ima_list.filter(|_| has_list);
    attempt.expectation.ima_log = policy;
    attempt
}

#[test]
fn what_a_list_must_lead_to_is_quoted_beside_the_other_registers_and_is_no_selector() {
    for policy in [EventLogPolicy::Lenient, EventLogPolicy::Verified, EventLogPolicy::Required] {
        let attempt = measured(policy, true);
        let (_, challenge) = attempt.begin().expect("challenged");
        assert_eq!(challenge.pcrs.to_string(), "0,1,2,3,4,5,6,7,8,9,10");
        let attested = attempt.verdict(|_| {}).expect("accepted");
        let ImaState::Quoted(quote) = attested.ima() else { panic!("{:?}", attested.ima()) };
        assert_eq!(quote.register, attempt.tpm.pcrs[10]);
        let kept: Vec<u8> = attested.boot().pcrs.iter().map(|(index, _)| *index).collect();
        assert_eq!(kept, [0, 2, 4, 7]);
        let selectors = attested.selectors().iter().map(ToString::to_string);
        assert!(!selectors.into_iter().any(|text| text.starts_with("tpm2:pcr:sha256:10:")));
    }
}

#[test]
fn a_list_is_asked_for_only_of_whoever_has_one_and_where_the_server_wants_it() {
    for policy in [EventLogPolicy::Lenient, EventLogPolicy::Verified] {
        let attempt = measured(policy, false);
        assert_eq!(attempt.begin().expect("challenged").1.pcrs.to_string(), "0,2,4,7");
        assert_eq!(*attempt.verdict(|_| {}).expect("accepted").ima(), ImaState::NotSent);
    }
    assert_eq!(refusal(measured(EventLogPolicy::Required, false).verdict(|_| {})), Refusal::NoImaLog);
    let ignored = measured(EventLogPolicy::Ignored, true);
    assert_eq!(ignored.begin().expect("challenged").1.pcrs.to_string(), "0,2,4,7");
    assert_eq!(*ignored.verdict(|_| {}).expect("accepted").ima(), ImaState::NotAsked);
}
