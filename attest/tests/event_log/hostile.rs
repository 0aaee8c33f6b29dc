//! Logs that nobody's firmware writes.

use ironroot_attest::event_log::{EventLog, EventLogError, MAX_EVENT_BYTES, MAX_EVENTS, MAX_LOG_BYTES};
use ironroot_attest::node::tpm2::PcrHash;
use ironroot_software_tpm::{BootLog, kind};

use crate::{quoted, verify};

const HASH: [u8; 32] = [9; 32];
/// Bytes of a log without events.
const HEADER_BYTES: usize = 65;

fn refused(bytes: &[u8]) -> EventLogError {
    EventLog::parse(bytes).expect_err("refused")
}

/// A log with one event, written by hand: register, type, digests, length of the data.
fn with_event(pcr: u32, digests: &[(u16, usize)], data: u32) -> Vec<u8> {
    let mut bytes = BootLog::new().bytes().to_vec();
    for number in [pcr, kind::SEPARATOR, digests.len() as u32] {
        bytes.extend(number.to_le_bytes());
    }
    for (algorithm, length) in digests {
        bytes.extend(algorithm.to_le_bytes());
        bytes.extend(vec![1; *length]);
    }
    bytes.extend(data.to_le_bytes());
    bytes.extend([0; 4]);
    bytes
}

//= TPM-31
#[test]
fn a_log_is_bounded_in_bytes_events_and_bytes_of_an_event() {
    assert_eq!(refused(&vec![0; MAX_LOG_BYTES + 1]), EventLogError::TooLong { bytes: MAX_LOG_BYTES + 1 });
    let mut log = BootLog::new();
    (0..MAX_EVENTS).for_each(|_| log.event(4, kind::SEPARATOR, HASH, &[]));
    assert_eq!(EventLog::parse(log.bytes()).expect("as many as there may be").events().len(), MAX_EVENTS);
    log.event(4, kind::SEPARATOR, HASH, &[]);
    assert_eq!(refused(log.bytes()), EventLogError::TooManyEvents);
    let mut log = BootLog::new();
    log.event(4, kind::SEPARATOR, HASH, &vec![0; MAX_EVENT_BYTES]);
    EventLog::parse(log.bytes()).expect("as long as it may be");
    let announced = u32::try_from(MAX_EVENT_BYTES + 1).expect("small");
    let long = EventLogError::EventTooLong { event: 1, bytes: MAX_EVENT_BYTES + 1 };
    assert_eq!(refused(&with_event(4, &[(0xb, 32)], announced)), long, "before a byte of it is there");
}

//= TPM-31
#[test]
fn a_log_ends_with_an_event_and_not_within_one() {
    let log = BootLog::booted(true, b"loader");
    let whole = EventLog::parse(log.bytes()).expect("parses").events().len();
    let read = |length| EventLog::parse(&log.bytes()[..length]).map(|log| log.events().len());
    let ends: Vec<usize> = (0..log.bytes().len()).filter_map(|length| read(length).ok()).collect();
    assert_eq!(ends, (0..whole).collect::<Vec<_>>(), "each end of an event, once");
    assert!(matches!(refused(&log.bytes()[..7]), EventLogError::Truncated { event: 0 }));
}

#[test]
fn each_digest_is_one_that_the_header_announces() {
    EventLog::parse(&with_event(4, &[(0xb, 32)], 4)).expect("well-formed");
    assert_eq!(refused(&with_event(24, &[(0xb, 32)], 4)), EventLogError::PcrIndex { event: 1, pcr: 24 });
    assert_eq!(refused(&with_event(4, &[], 4)), EventLogError::DigestCount { event: 1, count: 0 });
    assert_eq!(refused(&with_event(4, &[(0xb, 32); 2], 4)), EventLogError::DigestCount { event: 1, count: 2 });
    let unknown = EventLogError::UnknownAlgorithm { event: 1, algorithm: 4 };
    assert_eq!(refused(&with_event(4, &[(4, 20)], 4)), unknown);
}

#[test]
fn a_header_names_each_hash_once_with_its_length() {
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = BootLog::new().bytes().to_vec();
        assert_eq!(bytes.len(), HEADER_BYTES);
        change(&mut bytes);
        let length = u32::try_from(bytes.len() - 32).expect("small");
        bytes[28..32].copy_from_slice(&length.to_le_bytes());
        EventLog::parse(&bytes).map(drop)
    };
    assert_eq!(with(|_| {}), Ok(()));
    assert_eq!(with(|b| b[62] = 20), Err(EventLogError::AlgorithmLength { algorithm: 0xb, bytes: 20 }));
    for (wrong, change) in [
        ("none", (|b: &mut Vec<u8>| b[56] = 0) as fn(&mut Vec<u8>)),
        ("too many", |b| b[56] = 9),
        ("cut off", |b| b.truncate(60)),
        ("vendor's words cut off", |b| b[64] = 1),
        ("more behind", |b| b.push(0)),
        ("another specification", |b| b[46] = b'9'),
        ("twice", |b| {
            b[56] = 2;
            let algorithm = b[60..64].to_vec();
            b.splice(64..64, algorithm);
        }),
    ] {
        assert!(matches!(with(change), Err(EventLogError::Header(_))), "{wrong}");
    }
    let unknown_hash: fn(&mut Vec<u8>) = |b| {
        b[56] = 2;
        b.splice(64..64, [0x12, 0, 32, 0]);
    };
    assert_eq!(with(unknown_hash), Ok(()), "a hash that we do not know is passed over");
}

#[test]
fn two_digests_of_one_hash_are_refused_where_two_hashes_are_announced() {
    let mut bytes = with_event(4, &[(0xb, 32); 2], 4);
    bytes[56] = 2;
    bytes.splice(64..64, [0x0c, 0, 48, 0]);
    bytes[28..32].copy_from_slice(&37u32.to_le_bytes());
    assert_eq!(refused(&bytes), EventLogError::TwoDigests { event: 1, algorithm: 0xb });
    // One of the two is left out: the bank that it leaves out cannot be led to.
    let mut bytes = with_event(4, &[(0x0c, 48)], 4);
    bytes[56] = 2;
    bytes.splice(64..64, [0x0c, 0, 48, 0]);
    bytes[28..32].copy_from_slice(&37u32.to_le_bytes());
    let log = EventLog::parse(&bytes).expect("parses");
    let missing = EventLogError::NoDigest { event: 1, bank: PcrHash::Sha256 };
    assert_eq!(log.verify(PcrHash::Sha256, &[]).err(), Some(missing));
}

//= TPM-43
#[test]
fn a_log_that_leads_to_other_firmware_registers_is_refused() {
    let log = BootLog::booted(true, b"loader");
    for pcr in 0..8u8 {
        let mut pcrs = quoted(&log, &[0, 1, 2, 3, 4, 5, 6, 7]);
        pcrs[usize::from(pcr)].1[31] ^= 1;
        let verdict = EventLog::parse(log.bytes()).expect("parses").verify(PcrHash::Sha256, &pcrs);
        assert_eq!(verdict.err(), Some(EventLogError::Differs { pcr }));
    }
}

//= TPM-43
#[test]
fn a_register_that_the_log_leaves_untouched_was_never_extended() {
    let mut pcrs = quoted(&BootLog::new(), &[2]);
    pcrs[0].1[0] = 1;
    let verdict = EventLog::parse(BootLog::new().bytes()).expect("parses").verify(PcrHash::Sha256, &pcrs);
    assert_eq!(verdict.err(), Some(EventLogError::Differs { pcr: 2 }));
}

#[test]
fn what_the_running_system_extends_further_is_not_proven_and_not_refused() {
    let mut log = BootLog::booted(true, b"loader");
    log.measure(11, kind::IPL, b"a unified kernel image");
    let mut later = log.clone();
    later.measure(11, kind::IPL, b"a phase of systemd");
    let quoted = quoted(&later, &[4, 8, 11]);
    let verified = EventLog::parse(log.bytes()).expect("parses").verify(PcrHash::Sha256, &quoted).expect("no lie");
    assert_eq!([4, 8, 11, 7, 40].map(|pcr| verified.proves(pcr)), [true, true, false, false, false]);
    assert!(verified.secure_boot().is_err(), "PCR 7 was not quoted");
}

#[test]
fn the_end_of_boot_services_may_be_missing_from_the_log() {
    let log = BootLog::booted(true, b"loader");
    let parsed = || EventLog::parse(log.bytes()).expect("parses");
    for (missing, is_accepted) in [
        (&["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"][..], true),
        (&["Exit Boot Services Invocation"], true),
        (&["Exit Boot Services Invocation", "Exit Boot Services Returned with Failure"], true),
        (&["Exit Boot Services Returned with Success"], false),
    ] {
        let mut later = log.clone();
        missing.iter().for_each(|action| later.measure(5, kind::EFI_ACTION, action.as_bytes()));
        assert_eq!(parsed().verify(PcrHash::Sha256, &quoted(&later, &[5])).is_ok(), is_accepted, "{missing:?}");
        let elsewhere = (4, later.pcrs()[5].to_vec());
        assert!(parsed().verify(PcrHash::Sha256, &[elsewhere]).is_err(), "in PCR 5 alone");
    }
}

#[test]
fn the_startup_locality_is_told_once_and_before_anything_is_measured() {
    let told = |locality: u8| [b"StartupLocality\0".as_slice(), &[locality]].concat();
    let verdict = |localities: &[u8], begins_late: bool| {
        let mut log = BootLog::new();
        if begins_late {
            log.event(0, kind::SEPARATOR, HASH, &[]);
        }
        localities.iter().for_each(|locality| log.tell(0, kind::NO_ACTION, [0; 32], &told(*locality)));
        EventLog::parse(log.bytes()).expect("parses").verify(PcrHash::Sha256, &[]).map(drop)
    };
    assert_eq!(verdict(&[3], false), Ok(()));
    let refused = |event| Err(EventLogError::StartupLocality { event });
    assert_eq!(verdict(&[3, 3], false), refused(2));
    assert_eq!(verdict(&[3], true), refused(2));
    assert_eq!(verdict(&[1], false), refused(1));
    let mut log = BootLog::new();
    log.tell(0, kind::NO_ACTION, [0; 32], &told(3));
    let mut value = vec![0; 32];
    value[31] = 3;
    EventLog::parse(log.bytes()).expect("parses").verify(PcrHash::Sha256, &[(0, value)]).expect("begins there");
}

#[test]
fn an_old_log_has_sha_1_alone_and_leads_there() {
    let old = |data: &[u8]| {
        let mut bytes = Vec::new();
        for (pcr, kind, digest, data) in [
            (0u32, kind::NO_ACTION, [0u8; 20], &b"Spec ID Event02\0\0\0\0\0\0\0\0\0\0\0"[..]),
            (4, kind::IPL, [7; 20], data),
        ] {
            bytes.extend(pcr.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(digest);
            bytes.extend((data.len() as u32).to_le_bytes());
            bytes.extend(data);
        }
        EventLog::parse(&bytes).expect("parses")
    };
    let extended = PcrHash::Sha1.digest(&[&[0; 20], &[7; 20]]).as_ref().to_vec();
    let log = old(b"a boot loader");
    log.clone().verify(PcrHash::Sha1, &[(4, extended)]).expect("leads there");
    let silent = EventLogError::OtherBank { bank: PcrHash::Sha256 };
    assert_eq!(log.verify(PcrHash::Sha256, &[(4, vec![0; 32])]).err(), Some(silent));
}

#[test]
fn an_honest_log_of_no_machine_is_accepted() {
    let verified = verify(&BootLog::booted(false, b"loader"), &[0, 2, 4, 7]).expect("accepted");
    assert!(!verified.secure_boot().expect("told").enabled);
}
