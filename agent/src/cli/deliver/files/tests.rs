//! Sets of files on a disk.

use super::*;

fn directory(path: &Path) -> Directory {
    Directory::open(path.to_owned(), FileOwner::default(), 0o640).expect("usable")
}

fn set(key: &str) -> Vec<SetFile> {
    let file = |name: &str, is_secret| SetFile {
        name: name.to_owned(),
        content: Zeroizing::new(format!("{name} of {key}").into_bytes()),
        is_secret,
    };
    vec![file("svid.key", true), file("svid.pem", false)]
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("listed").map(|entry| entry.expect("an entry").file_name());
    let names = entries.map(|name| name.into_string().expect("text"));
    let mut names: Vec<String> = names.filter(|name| name != LOCK_FILE).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_current_set_is_whole_and_the_one_before_stays_until_the_next() {
    let parent = tempfile::tempdir().expect("directory");
    let path = parent.path().join("identity");
    let delivery = directory(&path);
    for (key, sets) in [("a", vec!["set-1"]), ("b", vec!["set-1", "set-2"]), ("c", vec!["set-2", "set-3"])] {
        let current = path.join(sets.last().expect("one"));
        assert_eq!(delivery.put(&|_| set(key)).expect("written"), Delivered::New);
        assert_eq!(delivery.current(), Some(current));
        for name in ["svid.key", "svid.pem"] {
            let read = fs::read_to_string(path.join(CURRENT).join(name)).expect("there");
            assert_eq!(read, format!("{name} of {key}"));
        }
        assert_eq!(names(&path), [vec![CURRENT], sets].concat());
    }
    let mode = |name: &str| fs::metadata(path.join(CURRENT).join(name)).expect("there").mode() & 0o777;
    assert_eq!((mode("svid.key"), mode("svid.pem")), (0o640, 0o644));
}

#[test]
fn a_directory_is_one_deliverys_as_long_as_that_lives() {
    let parent = tempfile::tempdir().expect("directory");
    let open = || Directory::open(parent.path().to_owned(), FileOwner::default(), 0o600);
    let first = open().expect("free");
    let second = open().expect_err("taken").message();
    assert!(second.contains("give each a directory of its own"), "{second}");
    drop(first);
    open().expect("free again");
}

#[test]
fn a_directory_that_was_removed_is_made_and_locked_anew_before_the_next_set() {
    let parent = tempfile::tempdir().expect("directory");
    let path = parent.path().join("identity");
    let mut delivery = directory(&path);
    let open = || Directory::open(path.clone(), FileOwner::default(), 0o640);
    for removed in [path.clone(), path.join(LOCK_FILE)] {
        delivery.put(&|_| set("a")).expect("written");
        if removed.is_dir() { fs::remove_dir_all(&removed) } else { fs::remove_file(&removed) }.expect("removed");
        delivery.hold().expect("made anew");
        delivery.put(&|_| set("b")).expect("written");
        assert!(path.join(CURRENT).join("svid.key").exists());
        open().expect_err("it is this one's again");
        delivery.hold().expect("nothing has changed");
    }
    fs::remove_dir_all(&path).expect("removed");
    let second = open().expect("free");
    let error = delivery.hold().expect_err("another's").message();
    assert!(error.contains("give each a directory of its own"), "{error}");
    drop(second);
    delivery.hold().expect("free again");
}

#[test]
fn whose_the_files_are_is_said_by_name_or_by_number() {
    let owner =
        |user, group| FileOwner::named(user, group).map(|owner| (owner.uid, owner.gid)).map_err(|e| e.message());
    assert_eq!(owner(Some("root"), Some("54321")), Ok((Some(0), Some(54_321))));
    assert_eq!(owner(Some("54321"), None), Ok((Some(54_321), None)));
    for nobody in ["no-such-user", "-1", "4294967295", ""] {
        assert!(owner(Some(nobody), None).is_err_and(|error| error.contains("there is no user")), "{nobody}");
    }
}

#[test]
fn what_is_there_already_is_left_as_it_is_and_what_differs_in_content_or_rights_is_not_taken_for_it() {
    let parent = tempfile::tempdir().expect("directory");
    let delivery = directory(parent.path());
    delivery.put(&|_| set("a")).expect("written");
    assert_eq!(delivery.put(&|_| set("a")).expect("looked at"), Delivered::AsItWas);
    let key = parent.path().join(CURRENT).join("svid.key");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("changed");
    assert_ne!(delivery.put(&|_| set("a")).expect("written"), Delivered::AsItWas, "whom it is for cannot read it");
    fs::write(parent.path().join(CURRENT).join("bundle.pem"), "an older version's").expect("written");
    assert_ne!(delivery.put(&|_| set("a")).expect("written"), Delivered::AsItWas);
}

#[test]
fn what_a_power_cut_left_half_is_never_current_and_goes_away() {
    let parent = tempfile::tempdir().expect("directory");
    let delivery = directory(parent.path());
    delivery.put(&|_| set("a")).expect("written");
    // Cut after the files of the next set, and after its link.
    fs::create_dir(parent.path().join("set-2")).expect("made");
    fs::write(parent.path().join("set-2").join("svid.key"), "half").expect("written");
    symlink("set-2", parent.path().join(NEXT)).expect("linked");
    assert_eq!(delivery.put(&|_| set("b")).expect("written"), Delivered::New);
    assert_eq!(delivery.current(), Some(parent.path().join("set-3")));
    assert_eq!(names(parent.path()), [CURRENT, "set-1", "set-3"]);
}

#[test]
fn a_set_that_cannot_be_written_leaves_the_current_one_and_nothing_else() {
    let parent = tempfile::tempdir().expect("directory");
    let delivery = directory(parent.path());
    delivery.put(&|_| set("a")).expect("written");
    let mut bad = set("b");
    bad.push(SetFile { name: "no/such/place".to_owned(), content: Zeroizing::default(), is_secret: false });
    let refused = delivery.put(&move |_| bad.clone()).expect_err("no such directory").message();
    assert!(refused.starts_with("cannot write a set of files into "), "{refused}");
    assert_eq!(names(parent.path()), [CURRENT, "set-1"]);
}

#[test]
fn files_may_say_where_they_are_and_of_which_set_others_were_told_is_known_to_the_next_run() {
    let parent = tempfile::tempdir().expect("directory");
    let delivery = directory(parent.path());
    let told = |delivery: &Directory| delivery.is_told();
    assert!(!told(&delivery), "there is nothing to tell of");
    let at = |version: &'static str| {
        move |place: &Path| vec![SetFile::open("where", format!("{version} in {}", place.display()))]
    };
    delivery.put(&at("a")).expect("written");
    assert!(!told(&delivery));
    delivery.note_told().expect("noted");
    assert!(told(&delivery));
    drop(delivery);
    let delivery = directory(parent.path());
    assert!(told(&delivery));
    let read = |name: &str| fs::read_to_string(parent.path().join(name).join("where")).expect("there");
    assert_eq!(read(CURRENT), format!("a in {}", parent.path().join("set-1").display()));
    assert_eq!(delivery.put(&at("a")).expect("looked at"), Delivered::AsItWas);
    delivery.put(&at("b")).expect("written");
    assert!(!told(&delivery), "of another one");
    assert_eq!(
        (read(TOLD), read(CURRENT).starts_with("b in ")),
        (format!("a in {}", parent.path().join("set-1").display()), true)
    );
}

#[test]
fn a_place_where_others_write_and_one_that_is_somebody_elses_are_refused() {
    let parent = tempfile::tempdir().expect("directory");
    let open = |path: PathBuf| Directory::open(path, FileOwner::default(), 0o600);
    fs::create_dir(parent.path().join(CURRENT)).expect("made");
    let refused = open(parent.path().to_owned()).expect_err("no link of ours").message();
    assert!(refused.contains("is not a link that this command made"), "{refused}");
    let public = parent.path().join("public");
    fs::create_dir(&public).expect("made");
    fs::set_permissions(&public, Permissions::from_mode(0o1777)).expect("opened");
    assert!(open(public).is_err());
}

#[test]
fn a_key_is_never_everybodys() {
    assert_eq!((key_mode("0600"), key_mode("640")), (Ok(0o600), Ok(0o640)));
    for mode in ["0644", "0601", "777", "1600", "rw", ""] {
        assert!(key_mode(mode).is_err(), "{mode}");
    }
}

#[test]
fn users_and_groups_that_do_not_exist_are_named() {
    assert!(FileOwner::named(Some("root"), Some("root")).is_ok());
    let refused = FileOwner::named(Some("nobody-of-that-name"), None).expect_err("unknown").message();
    assert_eq!(refused, "there is no user \"nobody-of-that-name\" on this machine");
}

#[test]
fn who_may_not_give_files_away_is_told_which_flags_do() {
    let denied = not_given_away(Errno::EPERM.into());
    assert!(denied.to_string().contains("-owner and -group") && denied.to_string().contains("root"), "{denied}");
    let full = not_given_away(Errno::ENOSPC.into());
    assert_eq!(full.raw_os_error(), Some(Errno::ENOSPC as i32));
}
