//! Lists that lie, or are no lists.

use ironroot_attest::ima::{
    ImaError, MAX_DATA_BYTES, MAX_ENTRIES, MAX_NAME_CHARS, MAX_PART_BYTES, MAX_PARTS, MAX_TEMPLATE_NAME_BYTES,
    Measured, Reached, Replay, read_part,
};

use super::{BANK, ImaList, file, programs, refusal, replay};

//= TPM-48
#[test]
fn a_list_that_leaves_out_changes_or_moves_a_file_does_not_lead_to_the_register() {
    let mut honest = programs();
    honest.measure("/bin/evil", b"evil");
    let mut renamed = programs();
    renamed.measure("/bin/good", b"evil");
    let mut moved = ImaList::begun(&[[3; 32]; 10]);
    moved.measure("/bin/sh", b"a shell");
    moved.measure("/init", b"init");
    moved.measure("/bin/evil", b"evil");
    for (lie, entries) in [(programs(), 3), (renamed, 4), (moved, 4)] {
        let mut replay = Replay::new(BANK, honest.register().to_vec());
        assert_eq!(replay.extend(lie.bytes(), |_| {}), Ok(Reached::NotYet), "more may follow");
        assert_eq!(replay.extend(&[], |_| {}), Err(ImaError::DoesNotLead { entries }), "it does not");
    }
}

//= TPM-47
#[test]
fn data_that_is_not_what_was_measured_is_refused() {
    let list = programs();
    let mut other = list.bytes().to_vec();
    let last = other.len() - 2;
    other[last] ^= 1;
    assert_eq!(refusal(&other), ImaError::OtherDigest { entry: 3 });
}

#[test]
fn a_violation_counts_and_what_its_entry_says_is_nobodys_word() {
    let mut list = programs();
    list.violation("/bin/good");
    let (reached, told) = replay(list.bytes(), list.register()).expect("accepted");
    assert_eq!((reached, told.last()), (Reached::Quoted, Some(&Measured::Violation)));
}

#[test]
fn entries_of_other_registers_prove_nothing_and_hide_nothing() {
    let mut list = programs();
    list.entry(11, "ima-ng", b"elsewhere");
    let quoted = list.register();
    list.measure("/bin/evil", b"evil");
    let (reached, told) = replay(list.bytes(), list.register()).expect("accepted");
    assert_eq!((reached, told.len()), (Reached::Quoted, 4));
    assert_eq!(replay(list.bytes(), quoted).expect("accepted").1.len(), 3);
    let mut hidden = list.bytes().to_vec();
    let evil = hidden.len() - programs_entry("/bin/evil");
    hidden[evil] = 11;
    assert_eq!(replay(&hidden, list.register()).expect("parsed").0, Reached::NotYet);
}

/// Bytes of an entry of that file.
fn programs_entry(path: &str) -> usize {
    let mut list = ImaList::default();
    list.measure(path, b"");
    list.bytes().len()
}

#[test]
fn what_is_cut_off_or_too_long_has_its_name() {
    let list = programs();
    for cut in [1, 10, 40, list.bytes().len() - 1] {
        assert!(matches!(refusal(&list.bytes()[..cut]), ImaError::Truncated { .. }), "{cut}");
    }
    let long = |data: usize| {
        let mut list = ImaList::default();
        list.entry(10, "ima-buf", &vec![7; data]);
        replay(list.bytes(), list.register())
    };
    assert!(long(MAX_DATA_BYTES).is_ok());
    assert_eq!(long(MAX_DATA_BYTES + 1), Err(ImaError::EntryTooLong { entry: 1, bytes: MAX_DATA_BYTES + 1 }));
    assert_eq!(refusal(&vec![0; MAX_PART_BYTES + 1]), ImaError::PartTooLong { bytes: MAX_PART_BYTES + 1 });
    let named = |name: &str| {
        let mut list = ImaList::default();
        list.entry(10, name, b"x");
        replay(list.bytes(), list.register())
    };
    assert!(named(&"n".repeat(MAX_TEMPLATE_NAME_BYTES)).is_ok());
    for (name, bytes) in [(String::new(), 0), ("n".repeat(256), 256), ("a b".into(), 3), ("ä".into(), 2)] {
        assert_eq!(named(&name), Err(ImaError::TemplateName { entry: 1, bytes }));
    }
    assert_eq!(named("ima"), Err(ImaError::OldTemplate { entry: 1 }));
}

#[test]
fn a_list_without_end_is_left() {
    let mut one = ImaList::default();
    one.entry(11, "ima-ng", b"x");
    let mut slow = Replay::new(BANK, vec![0xee; 32]);
    for _ in 0..MAX_PARTS {
        assert_eq!(slow.extend(one.bytes(), |_| {}), Ok(Reached::NotYet));
    }
    assert_eq!(slow.extend(one.bytes(), |_| {}), Err(ImaError::TooManyParts));
    let mut full = Replay::resumed(BANK, vec![0xee; 32], MAX_ENTRIES - 1, vec![0; 32]);
    assert_eq!(full.extend(one.bytes(), |_| {}), Ok(Reached::NotYet));
    assert_eq!(full.extend(one.bytes(), |_| {}), Err(ImaError::TooManyEntries));
    for (error, may_be) in [
        (ImaError::TooManyEntries, true),
        (ImaError::TooManyParts, true),
        (ImaError::OldTemplate { entry: 1 }, true),
        (ImaError::DoesNotLead { entries: 1 }, false),
        (ImaError::OtherDigest { entry: 1 }, false),
        (ImaError::Truncated { entry: 1 }, false),
    ] {
        assert_eq!(error.may_be_honest(), may_be, "{error}");
    }
}

#[test]
fn names_are_bounded_and_a_cut_one_begins_like_no_other() {
    let mut list = ImaList::default();
    let long = format!("/{}/tmp/{}", "d".repeat(100), "f".repeat(MAX_NAME_CHARS - 5));
    list.measure(&long, b"x");
    list.measure("/bin/a\nb", b"x");
    let (_, told) = replay(list.bytes(), list.register()).expect("accepted");
    let kept = format!("…/tmp/{}", "f".repeat(MAX_NAME_CHARS - 5));
    assert_eq!(told, [file(&kept, ImaList::digest_of(b"x")), file("/bin/a?b", ImaList::digest_of(b"x"))]);
}

#[test]
fn a_template_that_is_not_known_is_a_file_of_no_name_with_a_digest_of_its_own() {
    let mut list = ImaList::default();
    list.entry(10, "d-ng|n-ng|iuid", b"fields");
    list.entry(10, "ima-ng", b"\xff\xff\xff\xff");
    let (_, told) = replay(list.bytes(), list.register()).expect("accepted");
    for (told, template, data) in
        [(&told[0], "d-ng|n-ng|iuid", &b"fields"[..]), (&told[1], "ima-ng", b"\xff\xff\xff\xff")]
    {
        let digest = format!("template:{}", ImaList::digest_of(data));
        assert_eq!(*told, file(&format!("(template {template})"), digest));
    }
}

#[test]
fn the_agent_sends_nothing_of_what_is_no_list() {
    let field_too_long = [&[10, 0, 0, 0][..], &[1; 20], &[0, 1, 0, 0]].concat();
    let refused = read_part(&field_too_long[..], 0).expect_err("256 bytes of a name");
    assert!(refused.to_string().contains("no list of the kernel's"), "{refused}");
}
