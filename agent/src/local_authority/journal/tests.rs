use std::os::unix::fs::PermissionsExt;

use super::*;

fn issued(number: usize) -> Issued {
    let (entry_id, spiffe_id) = (format!("e{number}"), format!("spiffe://td/w/{number}"));
    Issued { entry_id, spiffe_id, serial: number.to_string(), issued_at: 1_000, expires_at: 2_000, jwt: None }
}

fn serials(journal: &Journal) -> Vec<String> {
    journal.first(usize::MAX, usize::MAX).into_iter().map(|issued| issued.serial).collect()
}

#[test]
fn what_was_noted_is_there_after_a_restart_and_goes_when_it_was_reported() {
    let directory = tempfile::tempdir().expect("directory");
    let mut journal = Journal::open(directory.path());
    assert!(journal.is_empty());
    journal.append(vec![issued(1), issued(2)]).expect("noted");
    journal.append(vec![issued(3)]).expect("noted");
    let mode = std::fs::metadata(&journal.path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut journal = Journal::open(directory.path());
    assert_eq!(serials(&journal), ["1", "2", "3"]);
    assert_eq!(journal.first(2, usize::MAX), [issued(1), issued(2)]);
    let two = lines_of([&issued(1), &issued(2)]).len();
    assert_eq!((journal.first(9, two), journal.first(9, two - 1)), (vec![issued(1), issued(2)], vec![issued(1)]));
    assert_eq!(journal.first(9, 0), [issued(1)], "no line is too long for a report of its own");
    journal.forget(&[issued(1), issued(2)]).expect("forgotten");
    journal.append(vec![issued(4)]).expect("noted");
    let mut journal = Journal::open(directory.path());
    assert_eq!(serials(&journal), ["3", "4"]);
    journal.forget(&journal.first(9, usize::MAX)).expect("forgotten");
    assert!(journal.is_empty() && !journal.path.exists());
}

#[test]
fn half_a_line_was_never_handed_out_and_nothing_is_written_behind_it() {
    let directory = tempfile::tempdir().expect("directory");
    let mut journal = Journal::open(directory.path());
    journal.append(vec![issued(1), issued(2)]).expect("noted");
    let whole = std::fs::read(&journal.path).expect("a file");
    for cut in [whole.len() - 1, whole.len() / 2 + 3] {
        std::fs::write(&journal.path, &whole[..cut]).expect("the power goes");
        let mut journal = Journal::open(directory.path());
        assert_eq!(serials(&journal), ["1"], "cut at {cut}");
        journal.append(vec![issued(3)]).expect("noted");
        assert_eq!(serials(&Journal::open(directory.path())), ["1", "3"]);
    }
}

#[test]
fn a_damaged_line_costs_that_line_alone() {
    let directory = tempfile::tempdir().expect("directory");
    let mut journal = Journal::open(directory.path());
    journal.append(vec![issued(1)]).expect("noted");
    let damaged = [&std::fs::read(&journal.path).expect("a file")[..], b"{}\n"].concat();
    std::fs::write(&journal.path, &damaged).expect("written");
    assert_eq!(serials(&Journal::open(directory.path())), ["1"]);
    let aside = journal.path.with_file_name(DAMAGED);
    assert_eq!(std::fs::read(&aside).expect("kept for people"), damaged);
    let endless = vec![b' '; MAX_JOURNAL_BYTES + 1];
    std::fs::write(&journal.path, &endless).expect("written");
    assert!(Journal::open(directory.path()).is_empty());
    assert_eq!(std::fs::read(&aside).expect("kept for people"), endless);
    let seed = lines_of(&[issued(1), issued(2)]);
    ironroot_fuzz::Target::new("issued.json").seed(seed).survives(|bytes| {
        let (held, _) = parse(bytes);
        assert!(lines_of(&held).len() <= 8 * bytes.len());
    });
}

#[test]
fn a_full_journal_takes_nothing_more_and_says_so() {
    let directory = tempfile::tempdir().expect("directory");
    let mut journal = Journal::open(directory.path());
    let one = lines_of(&[issued(1)]).len();
    let fits = MAX_JOURNAL_BYTES / one;
    let some: Vec<Issued> = std::iter::repeat_n(issued(1), fits).collect();
    journal.append(some).expect("they fit");
    let refused = journal.append(vec![issued(1)]).expect_err("it is full");
    assert!(matches!(&refused, JournalError::Full { .. }) && refused.to_string().contains("is full"), "{refused}");
    assert_eq!(Journal::open(directory.path()).len(), fits, "and the file is not longer than what is read");
}

#[test]
fn what_the_disk_does_not_take_is_not_noted() {
    let directory = tempfile::tempdir().expect("directory");
    let mut journal = Journal::open(directory.path());
    journal.append(vec![issued(1)]).expect("noted");
    std::fs::remove_file(&journal.path).expect("removed");
    std::fs::create_dir(&journal.path).expect("an obstacle");
    assert!(matches!(journal.append(vec![issued(2)]), Err(JournalError::Disk { .. })));
    assert_eq!(serials(&journal), ["1"]);
    std::fs::remove_dir(&journal.path).expect("out of the way");
    journal.append(vec![issued(3)]).expect("noted");
    assert_eq!(serials(&Journal::open(directory.path())), ["1", "3"]);
}

#[test]
fn what_no_server_takes_is_set_aside_in_a_file_of_its_own() {
    let directory = tempfile::tempdir().expect("directory");
    let mut journal = Journal::open(directory.path());
    journal.append(vec![issued(1)]).expect("noted");
    let path = journal.set_aside().expect("set aside");
    assert!(journal.is_empty());
    let aside = std::fs::read_to_string(&path).expect("a file");
    assert!(aside.contains("spiffe://td/w/1") && path.ends_with(SET_ASIDE), "{aside}");
    assert!(Journal::open(directory.path()).is_empty());
}

/// The `number`th of an entry's audiences, the `time`th time.
fn token(entry: &str, number: usize, time: i64) -> Issued {
    let jwt = Some(IssuedJwt { audience: format!("audience-{number}"), count: 1 });
    let (entry_id, spiffe_id) = (entry.to_owned(), format!("spiffe://td/{entry}"));
    Issued { entry_id, spiffe_id, serial: "9".repeat(38), issued_at: time, expires_at: time + 300, jwt }
}

#[test]
fn a_workload_that_asks_for_ever_new_audiences_leaves_room_for_others_tokens_and_for_x509_svids() {
    let directory = tempfile::tempdir().expect("directory");
    let mut journal = Journal::open(directory.path());
    for (entry, part) in [("greedy", 2), ("as greedy", 4)] {
        // Many at once: an fsync for each takes long.
        let most = MAX_TOKEN_BYTES_NOTED / part / lines_of(&[token(entry, 1_000, 1_000)]).len() - 20;
        journal.append((0..most).map(|number| token(entry, 1_000 + number, 1_000)).collect()).expect("noted");
        let refused = (0..).find_map(|number| journal.append_token(token(entry, number, 1_000)).err());
        assert!(matches!(&refused, Some(JournalError::Share { .. })), "{refused:?}");
        let taken = journal.held.iter().filter(|one| one.entry_id == entry).count();
        assert!((most..most + 80).contains(&taken), "{taken} of {most}");
        journal.append_token(token(&format!("beside {entry}"), 0, 1_000)).expect("there is room for others");
    }
    let svids: Vec<Issued> =
        std::iter::repeat_n(issued(1), MAX_TOKEN_BYTES_NOTED / lines_of(&[issued(1)]).len()).collect();
    journal.append(svids).expect("and for X509-SVIDs there is what is theirs");
    assert!(journal.bytes <= MAX_JOURNAL_BYTES);
    assert_eq!(Journal::open(directory.path()).len(), journal.len());
}

#[test]
fn tokens_of_one_audience_become_one_note_when_there_is_no_more_room_so_that_an_outage_does_not_fill_the_journal() {
    let directory = tempfile::tempdir().expect("directory");
    let mut journal = Journal::open(directory.path());
    let one = lines_of(&[token("e", 0, 1_000)]).len();
    let most = MAX_TOKEN_BYTES_NOTED / 2 / one;
    journal.append((0..most).map(|time| token("e", 0, 1_000 + time as i64)).collect()).expect("noted");
    let reported = journal.first(2, usize::MAX);
    journal.append_token(token("e", 0, 9_999)).expect("those before it become one");
    journal.append_token(token("e", 1, 9_999)).expect("another audience");
    let held = journal.first(9, usize::MAX);
    let counts: Vec<u32> = held.iter().filter_map(|one| Some(one.jwt.as_ref()?.count)).collect();
    assert_eq!(counts, [u32::try_from(most).expect("few"), 1, 1]);
    let last = 1_000 + most as i64 - 1;
    assert_eq!((held[0].issued_at, held[0].expires_at), (1_000, last + 300));
    assert_eq!(Journal::open(directory.path()).first(9, usize::MAX), held, "on the disk, too");
    journal.forget(&reported).expect("the server has noted what is now part of another");
    assert_eq!(journal.first(9, usize::MAX), held, "it is told once more, and nothing goes untold");
    journal.forget(&held).expect("forgotten");
    assert!(journal.is_empty());
}
