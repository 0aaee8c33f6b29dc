use super::*;

fn limits() -> Limits {
    Limits {
        max_connections: 32,
        max_connections_per_user: 8,
        max_streams: 30,
        max_streams_per_user: 3,
        max_attestations_per_user: 1,
        max_signatures_per_user: 1,
        long_discoveries: Most { per_user: 1, in_all: 2 },
        long_requests: Most { per_user: 2, in_all: 3 },
        burst_per_user: 100,
        rate_per_user: 10,
    }
}

fn admission() -> (Admission, Instant) {
    (Admission::new(limits(), SubordinateUids::default()), Instant::now())
}

fn connect(admission: &Admission, uid: u32, now: Instant) -> Arc<ConnectionSlot> {
    Arc::new(admission.connect(uid, now).expect("has room"))
}

fn is_evicted(slot: &ConnectionSlot) -> bool {
    slot.eviction().poll_asked(&std::task::Context::from_waker(std::task::Waker::noop()))
}

/// Users from 1 on, each with `connections` idle ones.
fn crowd(admission: &Admission, users: u32, connections: usize, now: Instant) -> Vec<Arc<ConnectionSlot>> {
    let each = |uid| (0..connections).map(move |_| uid);
    (1..=users).flat_map(each).map(|uid| connect(admission, uid, now)).collect()
}

#[test]
fn a_user_at_its_bound_gives_up_its_own_longest_idle_connection() {
    let (admission, now) = admission();
    let other = connect(&admission, 2, now);
    let held: Vec<_> = (0..8).map(|n| connect(&admission, 1, now + Duration::from_millis(n))).collect();
    let newest = connect(&admission, 1, now + Duration::from_secs(1));
    assert!(is_evicted(&held[0]) && held[1..].iter().all(|slot| !is_evicted(slot)) && !is_evicted(&newest));
    assert!(!is_evicted(&other));
}

#[test]
fn a_user_that_uses_all_its_connections_is_refused_and_others_are_not() {
    let limits = Limits { max_streams: 99, max_streams_per_user: 99, ..limits() };
    let (admission, now) = (Admission::new(limits, SubordinateUids::default()), Instant::now());
    let held: Vec<_> = (0..8).map(|_| connect(&admission, 1, now)).collect();
    let streams: Vec<_> = held.iter().map(|slot| slot.open_stream(now).expect("has room")).collect();
    assert_eq!(admission.connect(1, now).err(), Some(Crowded::User));
    assert!(admission.connect(2, now).is_ok());
    drop(streams);
    assert!(admission.connect(1, now).is_ok(), "idle again");
}

#[test]
fn at_the_bound_of_all_the_one_that_holds_most_gives_way_to_a_newcomer() {
    let (admission, now) = admission();
    let mut crowd = crowd(&admission, 3, 7, now);
    crowd.extend((0..8).map(|_| connect(&admission, 9, now)));
    assert_eq!(crowd.len(), 29, "up to the bound less what is kept for newcomers, and one below");
    let _last = connect(&admission, 1, now);
    let victims: Vec<_> = (100..120).map(|uid| connect(&admission, uid, now)).collect();
    assert!(victims.iter().all(|slot| !is_evicted(slot)), "each keeps the one it has");
    let evicted = |uid| crowd.iter().filter(|slot| slot.uid() == uid && is_evicted(slot)).count();
    assert!(evicted(9) >= evicted(2) && evicted(9) > 0, "the largest first");
    let open = crowd.iter().chain(&victims).filter(|slot| !is_evicted(slot)).count();
    assert!(open <= 32, "{open} are open");
}

#[test]
fn a_newcomer_is_taken_in_though_every_connection_is_used() {
    let limits = Limits { max_streams: 99, max_streams_per_user: 99, ..limits() };
    let (admission, now) = (Admission::new(limits, SubordinateUids::default()), Instant::now());
    let crowd = crowd(&admission, 4, 7, now);
    let _streams: Vec<_> = crowd.iter().map(|slot| slot.open_stream(now).expect("has room")).collect();
    let newcomers: Vec<_> = (10..20).map(|uid| connect(&admission, uid, now)).collect();
    assert!(newcomers.iter().all(|slot| !is_evicted(slot)));
    assert_eq!(admission.connect(10, now).err(), Some(Crowded::All), "one that has a connection takes none in use");
}

#[test]
fn nobody_gives_way_to_one_that_would_hold_as_many() {
    let (admission, now) = admission();
    let held: Vec<_> = (0..32).map(|uid| connect(&admission, uid, now)).collect();
    assert_eq!(admission.connect(99, now).err(), Some(Crowded::All));
    assert!(held.iter().all(|slot| !is_evicted(slot)));
}

#[test]
fn connections_that_do_not_end_are_waited_for() {
    let limits = Limits { burst_per_user: 1000, ..limits() };
    let (admission, now) = (Admission::new(limits, SubordinateUids::default()), Instant::now());
    let taken_in: Vec<_> = (0..200).map_while(|_| admission.connect(1, now).ok()).collect();
    assert_eq!(taken_in.len(), 8 + books::MAX_LEAVING);
    assert_eq!(admission.connect(1, now).err(), Some(Crowded::Leaving));
    drop(taken_in);
    assert!(admission.connect(1, now).is_ok());
}

#[test]
fn the_uids_of_one_user_share_its_bounds() {
    let now = Instant::now();
    let admission = Admission::new(limits(), SubordinateUids::unknown());
    let held: Vec<_> = (100_000..100_050).map(|uid| connect(&admission, uid, now)).collect();
    assert_eq!(held.iter().filter(|slot| !is_evicted(slot)).count(), 8);
}

#[test]
fn streams_are_bounded_per_user_and_given_back() {
    let (admission, now) = admission();
    let (first, second) = (connect(&admission, 1, now), connect(&admission, 1, now));
    let mut held: Vec<_> = [&first, &second, &second].map(|slot| slot.open_stream(now).expect("in bounds")).into();
    assert!(first.open_stream(now).is_none());
    assert!(connect(&admission, 2, now).open_stream(now).is_some());
    assert!(first.idle_since().is_none());
    drop(held.remove(0));
    assert!(first.idle_since().is_some_and(|since| since >= now), "idle from now on");
    assert!(first.open_stream(now).is_some(), "what is given back can be had again");
}

//= FLT-A7
#[test]
fn at_the_bound_of_all_streams_those_who_have_none_still_get_one() {
    let limits = Limits { max_streams: 4, ..limits() };
    let (admission, now) = (Admission::new(limits, SubordinateUids::default()), Instant::now());
    let open = |uid| connect(&admission, uid, now).open_stream(now);
    let _held: Vec<_> = [1, 1, 2, 2].map(|uid| open(uid).expect("in bounds")).into();
    assert!(open(1).is_none());
    let newcomer = open(3).expect("holds none");
    assert!(open(3).is_none());
    drop(newcomer);
    assert!(open(3).is_some());
}

//= FLT-A21
#[test]
fn attestations_take_turns_within_a_user_only() {
    let (admission, now) = admission();
    let first = admission.attestations(1, now).try_acquire_owned().expect("its turn");
    assert!(admission.attestations(1, now).try_acquire_owned().is_err());
    assert!(admission.attestations(2, now).try_acquire_owned().is_ok());
    drop(first);
    assert!(admission.attestations(1, now).try_acquire_owned().is_ok());
    let [north, south] = ServerNumber::up_to(2).collect::<Vec<_>>()[..] else { panic!("two") };
    let _call = admission.signatures(1, north, now).try_acquire_owned().expect("its turn");
    assert!(admission.signatures(1, north, now).try_acquire_owned().is_err(), "and so do calls to the server");
    assert!(admission.signatures(2, north, now).try_acquire_owned().is_ok());
    assert!(admission.signatures(1, south, now).try_acquire_owned().is_ok(), "another server is no slower for it");
    assert!(admission.attestations(1, now).try_acquire_owned().is_ok(), "neither waits for the other");
}

//= FLT-A9
#[tokio::test]
async fn long_messages_take_turns_within_a_user_and_at_the_bound_of_all_who_has_none_reads_one() {
    let (admission, now) = admission();
    let turn = |uid, kind| admission.long_messages(uid, kind, now).next();
    let of = |uid| turn(uid, LongMessage::Request);
    let first = of(1).await.expect("its turn");
    let _second = of(1).await.expect("its turn");
    let mut third = Box::pin(of(1));
    assert!(futures_util::poll!(third.as_mut()).is_pending(), "a user's own wait for each other");
    let _others = of(2).await.expect("another user does not wait");
    assert_eq!(of(2).await.err(), Some(NoTurn::Crowded), "all read as many as may be, and this one reads one");
    let _newcomers = of(3).await.expect("one that reads none is let in");
    turn(1, LongMessage::Discovery).await.expect("the other kind has turns of its own");
    drop(first);
    assert!(third.await.is_ok(), "first come, first served");
}

#[test]
fn one_user_never_gets_more_than_a_quarter_of_the_connections() {
    let limits = Limits { max_connections: 8, ..Limits::default() };
    let admission = Admission::new(limits, SubordinateUids::default());
    let held: Vec<_> = (0..8).map(|_| connect(&admission, 1, Instant::now())).collect();
    assert_eq!(held.iter().filter(|slot| !is_evicted(slot)).count(), 2);
}

#[test]
fn the_bucket_empties_and_refills_per_user() {
    let (admission, now) = admission();
    let in_rate = |uid, at| (0..1000).filter(|_| admission.is_in_rate(uid, at)).count();
    assert_eq!((in_rate(1, now), in_rate(2, now)), (100, 100));
    assert_eq!(in_rate(1, now + Duration::from_millis(250)), 2);
    assert_eq!(admission.connect(1, now + Duration::from_millis(250)).err(), Some(Crowded::Rate));
    assert_eq!(in_rate(1, now + Duration::from_secs(3600)), 100);
}

#[test]
fn what_a_user_is_served_is_logged_for_a_machine_that_boots_and_not_for_each_request_of_a_flood() {
    let (admission, now) = admission();
    let served = |uid, at| admission.should_log_served(uid, at);
    let burst = SERVED_PER_USER.burst as usize;
    assert_eq!((0..10_000).filter(|_| served(1, now).is_some()).count(), burst);
    assert_eq!(served(2, now).map(|pass| pass.suppressed), Some(None), "another user has lines of its own");
    let later = served(1, now + SERVED_PER_USER.interval).map(|pass| pass.suppressed);
    assert_eq!(later, Some(Some(10_000 - burst as u64)));
}

#[test]
fn lines_are_logged_once_in_a_while_for_each_user_and_thing_and_say_how_many_were_left_out() {
    let (admission, now) = admission();
    let log = |uid, about, at| admission.should_log(uid, about, at).map(|pass| pass.suppressed);
    assert_eq!(log(1, About::NoIdentity, now), Some(None));
    assert_eq!(log(1, About::NoIdentity, now), None);
    assert_eq!(log(1, About::NoIdentity, now + Duration::from_secs(9)), None);
    assert_eq!(log(1, About::Connection, now), Some(None));
    assert_eq!(log(2, About::NoIdentity, now), Some(None));
    assert_eq!(log(1, About::NoIdentity, now + Duration::from_secs(10)), Some(Some(2)));
}
