use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;

use super::*;

fn desk(directory: &Path) -> Desk {
    segment::make(directory).expect("made");
    let (segments, recent) = Segments::open(directory).expect("opens");
    let (head, durable) = (recent.head, watch::channel(recent.head).0);
    let shared = Shared::new(None, recent, 0);
    Desk::new(segments, None, head, durable, Arc::new(shared))
}

/// Something that was issued.
fn of(object: &str) -> Vec<Queued> {
    done("NewJWTSVID", object)
}

fn done(method: &str, object: &str) -> Vec<Queued> {
    let [method, object, by] = [method, object, "uid 0"].map(str::to_owned);
    vec![Queued { event: Event { method, object, by }, at: 7, revision: None }]
}

fn on_the_disk(directory: &Path) -> Vec<String> {
    let mut objects = Vec::new();
    crate::issuance_log::read(directory, |record, _| objects.push(record.body.object.clone())).expect("a whole chain");
    objects
}

/// A sync that fails, of pages that are gone with that: the next one would succeed.
fn lose_what_is_written(desk: &mut Desk, object: &str) {
    let (_reader, writer) = io::pipe().expect("a pipe");
    let file = std::mem::replace(&mut desk.segments.file, File::from(OwnedFd::from(writer)));
    desk.write(of(object));
    desk.sync();
    desk.segments.file = file;
}

#[test]
fn what_a_failed_sync_may_have_lost_is_on_the_disk_before_its_head_is_shown() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("issuance");
    let mut desk = desk(&log);
    desk.write(of("first"));
    desk.sync();
    for (lost, records) in [("second", 2), ("fourth", 4)] {
        lose_what_is_written(&mut desk, lost);
        assert_eq!(desk.durable.borrow().sequence, records - 1, "it is not known to be on the disk");
        assert!(lock(&desk.shared.trouble).is_some());
        desk.write(of("waits for no disk"));
        desk.sync();
        assert_eq!(*desk.durable.borrow(), desk.head);
        assert_eq!((desk.head.sequence, on_the_disk(&log).len()), (records, usize::try_from(records).expect("few")));
        assert!(lock(&desk.shared.trouble).is_none() || desk.left_out() > 0);
        desk.write(Vec::new());
        desk.sync();
    }
    assert_eq!(on_the_disk(&log), ["first", "second", "1 records", "fourth", "1 records"]);
    let (_, again) = Segments::open(&log).expect("opens");
    assert_eq!(again.head, desk.head);
}

#[test]
fn of_a_segment_that_holds_nothing_yet_the_first_records_are_written_again() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("issuance");
    let mut desk = desk(&log);
    lose_what_is_written(&mut desk, "first");
    desk.end();
    assert_eq!((on_the_disk(&log), desk.left_out()), (vec!["first".to_owned()], 0));
    assert_eq!(desk.durable.borrow().sequence, 1);
}

#[test]
fn what_operators_did_outlives_the_segments_that_issued_tokens_push_out() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("issuance");
    let mut desk = desk(&log);
    let kept = || {
        let mut objects = Vec::new();
        crate::issuance_log::read_kept(&log, |record| objects.push(record.body.object.clone())).expect("reads");
        objects
    };
    for (method, object) in [("BanAgent", "a"), ("NewJWTSVID", "token"), ("DeleteAgent", "b"), ("ReportIssued", "c")] {
        desk.write(done(method, object));
        desk.turn();
    }
    let first = segment::list(&log).expect("listed").remove(0);
    let copy = fs::read(&first).expect("read");
    kept::drop_old(&log, 4).expect("dropped");
    assert_eq!((kept(), on_the_disk(&log)), (vec!["a".to_owned()], ["token", "b", "c"].map(str::to_owned).to_vec()));
    let shown = |count| -> Vec<String> {
        let read = crate::issuance_log::read_last_kept(&log, count).expect("reads");
        read.into_iter().map(|record| record.body.object).collect()
    };
    assert_eq!(
        (shown(9), shown(1), shown(0)),
        (vec!["a".to_owned(), "b".to_owned()], vec!["b".to_owned()], Vec::new())
    );
    // The machine stopped before the segment was removed, and while the next record was kept.
    fs::write(&first, copy).expect("written");
    let torn = fs::read_dir(&log).expect("listed").filter_map(|entry| Some(entry.ok()?.path()));
    let torn: Vec<_> = torn.filter(|path| path.to_string_lossy().contains("kept-")).collect();
    let mut file = OpenOptions::new().append(true).open(&torn[0]).expect("opens");
    file.write_all(b"{\"body\":").expect("written");
    kept::drop_old(&log, 1).expect("dropped");
    assert_eq!((kept(), on_the_disk(&log)), (vec!["a".to_owned(), "b".to_owned()], Vec::new()));
    assert_eq!(Segments::open(&log).expect("opens").1.head, desk.head, "the chain goes on");
}

/// An older state was accepted, and no record of the new epoch is there yet.
#[test]
fn the_first_records_of_an_epoch_are_written_again_behind_the_last_of_the_epoch_before() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("issuance");
    let mut desk = desk(&log);
    desk.write(of("before"));
    desk.sync();
    desk.head.epoch += 1;
    desk.durable.send_replace(desk.head);
    lose_what_is_written(&mut desk, "after");
    desk.end();
    assert_eq!(on_the_disk(&log), ["before", "after"]);
}

#[test]
fn what_operators_did_while_nothing_could_be_written_is_written_later_and_what_was_issued_is_counted() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("issuance");
    let mut desk = desk(&log);
    lose_what_is_written(&mut desk, "first");
    desk.write(done("BanAgent", "in doubt"));
    desk.write(of("not kept"));
    desk.sync();
    let full = OpenOptions::new().write(true).open("/dev/full").expect("there");
    let file = std::mem::replace(&mut desk.segments.file, full);
    desk.write(of("nor this").into_iter().chain(done("BanDevice", "no room")).collect());
    assert_eq!(desk.left_out(), 4, "what is held counts until it is on the disk");
    desk.segments.file = file;
    desk.end();
    let expected = ["first", "2 records", "in doubt", "no room"];
    assert_eq!((on_the_disk(&log), desk.left_out()), (expected.map(str::to_owned).to_vec(), 0));
    let lines = std::iter::repeat_with(|| done("BanAgent", "a").remove(0)).take(MAX_OPERATORS_WAITING + 1);
    desk.put_off(lines.collect());
    assert_eq!(desk.held.len(), MAX_OPERATORS_WAITING, "so many, and no more");
    assert_eq!(desk.left_out(), MAX_OPERATORS_WAITING as u64 + 1);
}

#[test]
fn issued_tokens_leave_room_in_the_queue_for_what_operators_do() {
    let (queue, events) = sync_channel(MAX_WAITING + MAX_OPERATORS_WAITING);
    let shared = Shared::new(Some(queue), Recent::behind(Head::of_nothing(1)), 0);
    let log = IssuanceLog { shared: Arc::new(shared), durable: watch::channel(Head::of_nothing(1)).1 };
    let append = |method: &str, count: usize| {
        for _ in 0..count {
            log.append(done(method, "x").remove(0).event);
        }
        log.shared.left_out.load(Ordering::Relaxed)
    };
    assert_eq!(append("NewJWTSVID", MAX_WAITING + 2), 2, "as many wait as may");
    assert_eq!(append("BanAgent", MAX_OPERATORS_WAITING), 2, "and there is room beside them");
    assert_eq!(append("BanAgent", 1), 3);
    assert_eq!(events.try_iter().count(), MAX_WAITING + MAX_OPERATORS_WAITING);
}

/// A disk that takes a part of a line, and does not let it be taken back.
#[test]
fn behind_a_part_of_a_line_that_stays_nothing_is_written() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("issuance");
    let mut desk = desk(&log);
    desk.write(of("first"));
    desk.sync();
    desk.write(of("second"));
    for (number, broken) in ["third", "fifth"].into_iter().enumerate() {
        desk.segments.file.write_all(b"{\"body\":{\"epo").expect("written");
        let full = OpenOptions::new().write(true).open("/dev/full").expect("there");
        let file = std::mem::replace(&mut desk.segments.file, full);
        desk.write(of(broken));
        desk.segments.file = file;
        assert_eq!(desk.left_out(), 1, "{number}");
        desk.write(of("waits for no disk"));
        desk.sync();
        desk.write(of("goes on"));
        desk.sync();
        assert_eq!(*desk.durable.borrow(), desk.head);
        assert!(!desk.is_in_doubt);
    }
    let [left_out, on] = ["2 records", "goes on"];
    assert_eq!(on_the_disk(&log), ["first", "second", left_out, on, left_out, on]);
}

#[test]
fn an_epoch_that_is_shown_is_on_the_disk() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("issuance");
    let first = IssuanceLog::open(&log, None).expect("opens");
    first.append(done("NewJWTSVID", "before").remove(0).event);
    first.close();
    let second = IssuanceLog::open(&log, Some(1)).expect("opens");
    let shown = *second.durable().borrow();
    // As a machine that loses its power leaves it: nothing is written as the log ends.
    let left = directory.path().join("left");
    fs::create_dir(&left).expect("made");
    for segment in segment::list(&log).expect("listed") {
        fs::copy(&segment, left.join(segment.file_name().expect("a name"))).expect("copied");
    }
    let again = IssuanceLog::open(&left, None).expect("opens");
    assert!(shown.epoch > first.durable().borrow().epoch);
    assert_eq!(*again.durable().borrow(), shown);
    assert_eq!(again.contradicts(&shown), Some(false), "an agent that keeps it finds it again");
}
