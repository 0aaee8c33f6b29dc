use std::os::unix::fs::PermissionsExt;

use super::*;

fn issued(number: usize) -> Issued {
    let (entry_id, spiffe_id) = (format!("e{number}"), format!("spiffe://td/w/{number}"));
    Issued { entry_id, spiffe_id, serial: number.to_string(), issued_at: 1_000, expires_at: 2_000 }
}

fn serials(journal: &Journal) -> Vec<String> {
    journal.first(usize::MAX).into_iter().map(|issued| issued.serial).collect()
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
    assert_eq!(journal.first(2), [issued(1), issued(2)]);
    journal.forget(2).expect("forgotten");
    journal.append(vec![issued(4)]).expect("noted");
    let mut journal = Journal::open(directory.path());
    assert_eq!(serials(&journal), ["3", "4"]);
    journal.forget(9).expect("forgotten");
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
