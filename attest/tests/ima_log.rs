//! The kernel's list of measured files: a real one leads to the PCR 10 of its boot, and nothing else does.

use ironroot_attest::ima_log::{self, Entry, ImaLogError, MAX_ENTRIES, MAX_PART_BYTES, MAX_TEMPLATE_BYTES, Progress};
use ironroot_attest::node::tpm2::PcrHash;

const LIST: &[u8] = include_bytes!("boot_logs/ovmf_direct_ima_tcb_ext4/ima_binary_runtime_measurements");
const PCRS: &[u8] = include_bytes!("boot_logs/ovmf_direct_ima_tcb_ext4/pcrs_sha256.bin");
const BANK: PcrHash = PcrHash::Sha256;

fn pcr(index: usize) -> &'static [u8] {
    &PCRS[32 * index..32 * (index + 1)]
}

fn list() -> Vec<Entry> {
    ima_log::parse(LIST).expect("a real list")
}

/// PCR 10 behind the first `count` entries of a real list.
fn value_behind(count: usize) -> Vec<u8> {
    extended(vec![0; 32], &raw(LIST)[..count])
}

fn extended(start: Vec<u8>, entries: &[Vec<u8>]) -> Vec<u8> {
    let extend =
        |value: Vec<u8>, fields: &Vec<u8>| BANK.digest(&[&value, BANK.digest(&[fields]).as_ref()]).as_ref().to_vec();
    entries.iter().fold(start, extend)
}

/// The fields of each entry of a list with newer templates, by no code of the parser.
fn raw(mut list: &[u8]) -> Vec<Vec<u8>> {
    let number = |at: usize, list: &[u8]| u32::from_le_bytes(list[at..at + 4].try_into().expect("4 bytes")) as usize;
    let mut entries = Vec::new();
    while !list.is_empty() {
        let name = number(24, list);
        let fields = number(28 + name, list);
        entries.push(list[32 + name..32 + name + fields].to_vec());
        list = &list[32 + name + fields..];
    }
    entries
}

fn entry(template: &str, fields: &[u8], digest: [u8; 20]) -> Vec<u8> {
    let mut bytes = 10u32.to_le_bytes().to_vec();
    bytes.extend(digest);
    bytes.extend((template.len() as u32).to_le_bytes());
    bytes.extend(template.as_bytes());
    if template != "ima" {
        bytes.extend((fields.len() as u32).to_le_bytes());
    }
    bytes.extend(fields);
    bytes
}

fn sha1(bytes: &[u8]) -> [u8; 20] {
    PcrHash::Sha1.digest(&[bytes]).as_ref().try_into().expect("20 bytes")
}

#[test]
fn a_real_list_leads_to_the_pcr_10_of_its_boot_and_begins_with_what_was_booted() {
    let list = list();
    assert!(list.len() > 40);
    let start = Progress::start(BANK);
    start.check_boot_aggregate(&list, &(0..10).map(pcr).collect::<Vec<_>>()).expect("PCRs 0 to 9");
    let wrong = start.check_boot_aggregate(&list, &(0..8).map(pcr).collect::<Vec<_>>());
    assert_eq!(wrong, Err(ImaLogError::BootAggregate));
    let reached = start.reach(&list, pcr(10)).expect("leads there");
    assert_eq!((reached.proven, reached.violations), (raw(LIST).len() - reached.ahead, 0));
    assert_eq!(reached.progress.entries(), reached.proven as u64);
}

#[test]
fn a_list_may_be_ahead_of_the_quote_and_the_next_replay_goes_on_where_this_one_ended() {
    let (list, raw) = (list(), raw(LIST));
    let reached = Progress::start(BANK).reach(&list, &value_behind(7)).expect("reached in between");
    assert_eq!((reached.proven, reached.ahead), (7, list.len() - 7));
    let offset = usize::try_from(reached.progress.bytes()).expect("small");
    assert_eq!(offset, LIST.len() - self::raw(&LIST[offset..]).iter().map(|fields| fields.len() + 39).sum::<usize>());
    let rest = ima_log::parse(&LIST[offset..]).expect("begins with an entry");
    let again = reached.progress.clone().reach(&rest, &value_behind(7)).expect("nothing new was quoted");
    assert_eq!((again.proven, again.ahead), (0, rest.len()));
    let on = reached.progress.reach(&rest, &extended(vec![0; 32], &raw)).expect("goes on");
    assert_eq!((on.proven, on.ahead, on.progress.entries()), (rest.len(), 0, list.len() as u64));
    assert_eq!(on.progress.check_boot_aggregate(&rest, &[]), Ok(()), "only the first part begins with it");
}

#[test]
fn a_list_with_an_entry_changed_left_out_or_put_in_leads_nowhere() {
    let not_reached = |entries: &[Entry]| Progress::start(BANK).reach(entries, pcr(10)).expect_err("refused");
    let mut less = list();
    less.remove(3);
    assert!(matches!(not_reached(&less), ImaLogError::NotReached { .. }));
    let mut swapped = list();
    swapped.swap(4, 5);
    assert!(matches!(not_reached(&swapped), ImaLogError::NotReached { .. }));
    let mut changed = LIST.to_vec();
    changed[60] ^= 1;
    assert_eq!(ima_log::parse(&changed), Err(ImaLogError::Digest { entry: 0 }));
}

#[test]
fn each_template_is_hashed_as_the_kernel_does_it() {
    let fields = b"any fields";
    for template in ["ima-ng", "ima-sig", "ima-buf", "ima-modsig"] {
        let read = ima_log::parse(&entry(template, fields, sha1(fields))).expect("known");
        let value = extended(vec![0; 32], &[fields.to_vec()]);
        assert_eq!(Progress::start(BANK).reach(&read, &value).expect("reached").proven, 1, "{template}");
    }
    let oldest = [&[7; 20][..], &4u32.to_le_bytes(), b"file"].concat();
    let mut hashed = [&[7; 20][..], b"file"].concat();
    hashed.resize(276, 0);
    let read = ima_log::parse(&entry("ima", &oldest, sha1(&hashed))).expect("known");
    let value = extended(vec![0; 32], &[hashed]);
    assert_eq!(Progress::start(BANK).reach(&read, &value).expect("reached").proven, 1);
    let unknown = ima_log::parse(&entry("ima-next", fields, sha1(fields)));
    assert_eq!(unknown, Err(ImaLogError::Template { entry: 0, name: "ima-next".into() }));
}

#[test]
fn a_violation_extends_ones_and_is_counted() {
    let read = ima_log::parse(&entry("ima-ng", b"who knows", [0; 20])).expect("a violation");
    let value = BANK.digest(&[&[0; 32], &[0xff; 32]]).as_ref().to_vec();
    let reached = Progress::start(BANK).reach(&read, &value).expect("reached");
    assert_eq!((reached.proven, reached.violations), (1, 1));
}

#[test]
fn a_part_is_bounded_and_an_entry_that_its_end_cuts_off_waits_for_the_next() {
    let too_long = vec![0; MAX_PART_BYTES + 1];
    assert_eq!(ima_log::parse(&too_long), Err(ImaLogError::TooLong { bytes: too_long.len() }));
    let whole = list().len();
    let counts: Vec<usize> = (0..=LIST.len()).map(|end| ima_log::parse(&LIST[..end]).expect("cut").len()).collect();
    assert!(counts.is_sorted() && counts.last() == Some(&whole) && counts[0] == 0);
    let mut huge = entry("ima-ng", b"", [1; 20]);
    let end = huge.len();
    huge[end - 4..].copy_from_slice(&(MAX_TEMPLATE_BYTES as u32 + 1).to_le_bytes());
    let refusal = ImaLogError::EntryTooLong { entry: 0, bytes: MAX_TEMPLATE_BYTES + 1 };
    assert_eq!(ima_log::parse(&huge), Err(refusal));
    let mut other = entry("ima-ng", b"", [0; 20]);
    other[0] = 11;
    assert_eq!(ima_log::parse(&other), Err(ImaLogError::PcrIndex { entry: 0, pcr: 11 }));
    // The shortest entries there are: more than fit into the longest part.
    const { assert!(MAX_PART_BYTES / 40 < MAX_ENTRIES) };
}
