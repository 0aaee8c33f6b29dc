//! `scripts/circles`, which keeps the rooms free of modules that import each other in a circle.

use std::path::Path;
use std::process::{Command, Output};

fn circles(sources: &[(&str, &str)]) -> Output {
    let directory = tempfile::tempdir().expect("directory");
    for (name, code) in sources {
        let file = directory.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(file, code).expect("written");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/circles");
    Command::new(script).arg(directory.path()).output().expect("python3 runs")
}

#[test]
fn modules_that_import_each_other_are_found_also_over_a_third() {
    let (a, b) = ("use super::b::B;\npub struct A(B);\n", "pub struct B;\nimpl crate::c::C {}\n");
    let found = circles(&[
        ("lib.rs", "mod a;\nmod b;\nmod c;\n"),
        ("a.rs", a),
        ("b.rs", b),
        ("c.rs", "use crate::a::{self, A};\n"),
    ]);
    let said = String::from_utf8_lossy(&found.stderr).into_owned();
    assert!(!found.status.success());
    for arrow in ["a -> b", "b -> c", "c -> a"] {
        assert!(said.contains(arrow), "{said}");
    }
}

#[test]
fn a_parent_that_only_hands_on_what_its_child_defines_is_no_circle_and_neither_are_tests() {
    let parent = "mod child;\nmod other;\npub use child::Child;\n";
    let child = "pub struct Child;\n#[cfg(test)]\nmod tests {\n    use super::super::other::Other;\n}\n";
    let other = "//! See [`super::child`].\nuse super::Child;\npub struct Other(Child);\n";
    let found =
        circles(&[("lib.rs", "mod room;\n"), ("room.rs", parent), ("room/child.rs", child), ("room/other.rs", other)]);
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
}
