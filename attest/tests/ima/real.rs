//! A list that a kernel wrote, and the registers of that boot.

use ironroot_attest::ima::{Aggregate, MAX_PART_BYTES, Measured, Reached, Replay, read_part};
use ironroot_attest::node::tpm2::PcrHash;

use super::{BANK, ImaList, file, programs, replay};

const LIST: &[u8] = include_bytes!("../boot_logs/ovmf_direct_ima_tcb_ext4/ima_binary_runtime_measurements");
const PCRS: &[u8] = include_bytes!("../boot_logs/ovmf_direct_ima_tcb_ext4/pcrs_sha256.bin");

fn pcr(index: usize) -> [u8; 32] {
    PCRS[32 * index..][..32].try_into().expect("32 bytes")
}

fn booted() -> Vec<(u8, Vec<u8>)> {
    (0..=9).map(|index| (index, pcr(index.into()).to_vec())).collect()
}

//= TPM-48
#[test]
fn a_real_list_leads_to_the_register_of_its_boot_and_begins_with_the_others() {
    let (reached, told) = replay(LIST, pcr(10)).expect("accepted");
    // The list was read after the registers: three of its 57 entries came in between.
    assert_eq!((reached, told.len()), (Reached::Quoted, 54));
    let aggregate = Aggregate::of(BANK, &booted()).expect("all are there");
    assert_eq!(told[0], Measured::BootAggregate { digest: aggregate.digest() });
    let init = "sha256:bcf820da797d30567332c97d86446d16f335994ebb68c7983f07acc2e98c43b7";
    assert_eq!(told[1], file("/init2", init.into()));
    assert_eq!(Aggregate::of(BANK, &booted()[1..]), None, "PCR 0 is not there");
}

#[test]
fn what_was_measured_after_the_quote_is_left_for_the_next_time_which_goes_on_from_there() {
    let mut list = programs();
    let quoted = list.register();
    list.measure("/bin/later", b"later");
    let mut first = Replay::new(BANK, quoted.to_vec());
    let mut told = 0;
    assert_eq!(first.extend(list.bytes(), |_| told += 1), Ok(Reached::Quoted));
    assert_eq!((told, first.entries()), (3, 3));

    let next = list.register().to_vec();
    let mut second = Replay::resumed(BANK, next.clone(), first.entries(), first.register().to_vec());
    let part = read_part(list.bytes(), first.entries()).expect("read");
    let mut told = Vec::new();
    assert_eq!(second.extend(&part, |measured| told.push(measured)), Ok(Reached::Quoted));
    assert_eq!(told, [file("/bin/later", ImaList::digest_of(b"later"))]);
    let nothing_new = Replay::resumed(BANK, next.clone(), second.entries(), next);
    assert_eq!(nothing_new.reached(), Reached::Quoted, "nothing has to travel");
}

#[test]
fn a_list_of_any_length_comes_in_parts_of_whole_entries() {
    let mut list = programs();
    (0..4000).for_each(|number| list.measure(&format!("/usr/lib/{number}"), b"a library"));
    let (mut replay, mut parts) = (Replay::new(BANK, list.register().to_vec()), 0);
    while replay.reached() == Reached::NotYet {
        let part = read_part(list.bytes(), replay.entries()).expect("read");
        assert!(part.len() <= MAX_PART_BYTES);
        replay.extend(&part, |_| {}).expect("accepted");
        parts += 1;
    }
    assert_eq!((replay.entries(), parts), (4003, 3), "{} bytes", list.bytes().len());
    assert!(read_part(list.bytes(), replay.entries()).expect("read").is_empty());
    let cut = &list.bytes()[..list.bytes().len() - 1];
    assert!(read_part(cut, 4002).expect("read").is_empty(), "an entry that is not whole is not sent");
}

#[test]
fn each_bank_is_extended_with_its_own_hash_of_the_data() {
    for bank in PcrHash::ALL {
        let mut list = ImaList::default();
        list.entry(10, "ima-ng", b"data");
        list.violation("/tmp/open");
        let of_data = bank.digest(&[&vec![0; bank.bytes()], bank.digest(&[b"data"]).as_ref()]);
        let register = bank.digest(&[of_data.as_ref(), &vec![0xff; bank.bytes()]]);
        let mut replay = Replay::new(bank, register.as_ref().to_vec());
        assert_eq!(replay.extend(list.bytes(), |_| {}), Ok(Reached::Quoted), "{bank}");
    }
}

#[test]
fn with_sha_1_the_aggregate_is_of_the_first_eight_registers() {
    let quoted: Vec<(u8, Vec<u8>)> = (0..=9).map(|index| (index, vec![index; 20])).collect();
    let eight: Vec<u8> = (0..8).flat_map(|index| [index; 20]).collect();
    let aggregate = Aggregate::of(PcrHash::Sha1, &quoted).expect("all are there");
    let digest = ironroot_text::hex::hex(PcrHash::Sha1.digest(&[&eight]).as_ref());
    assert_eq!(aggregate.digest(), format!("sha1:{digest}"));
}
