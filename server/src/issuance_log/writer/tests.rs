use std::os::fd::OwnedFd;

use super::*;

fn desk(directory: &Path) -> Desk {
    segment::make(directory).expect("made");
    let (segments, recent) = Segments::open(directory).expect("opens");
    let (head, durable) = (recent.head, watch::channel(recent.head).0);
    let shared = Shared {
        queue: Mutex::default(),
        revision: AtomicI64::new(-1),
        left_out: AtomicU64::new(0),
        recent: Mutex::new(recent),
        trouble: Mutex::default(),
        thread: Mutex::default(),
    };
    Desk::new(segments, None, head, durable, Arc::new(shared))
}

fn of(object: &str) -> Vec<Queued> {
    let [method, object, by] = ["M", object, "uid 0"].map(str::to_owned);
    vec![Queued { event: Event { method, object, by }, revision: None }]
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
    let done = |method: &str, object: &str| {
        let [method, object, by] = [method, object, "uid 0"].map(str::to_owned);
        vec![Queued { event: Event { method, object, by }, revision: None }]
    };
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
