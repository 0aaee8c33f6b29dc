//! The list of requirements and what the code says of it do not part.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const LIST: &str = "\
| id | level | source | sentence | nowhere, because |
|---|---|---|---|---|
| AB-01 | MUST | A standard 2.1 | \"A thing MUST be so.\" | |
| AB-02 | MUST | A standard 2.2 | \"Another MUST NOT be.\" | not built yet: others |
";
const CHECKED: &str = "fn thing() {\n    //= AB-01 A standard 2.1: \"MUST be so\"\n    so();\n}\n";

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/requirements")
}

/// What the script says of a tree with this list and one file of code.
fn said(list: &str, code: &str, mode: &[&str]) -> (bool, String) {
    let tree = tempfile::tempdir().expect("directory");
    for (file, text) in [("docs/requirements.md", list), ("room/src/code.rs", code)] {
        let path = tree.path().join(file);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        std::fs::write(path, text).expect("written");
    }
    let output = Command::new(script()).args(mode).env("IRONROOT_REQUIREMENTS_ROOT", tree.path()).output();
    let Output { status, stdout, stderr } = output.expect("runs");
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

#[test]
fn each_requirement_is_listed_with_where_it_is_checked_and_proven_or_why_nowhere() {
    let tested = format!("{CHECKED}//= AB-01\n#[tokio::test]\nasync fn a_thing_is_so() {{}}\n");
    let (fine, text) = said(LIST, &tested, &[]);
    assert!(fine, "{text}");
    for line in [
        "  checked  room/src/code.rs:2\n",
        "  proven   room/src/code.rs:5 a_thing_is_so\n",
        "  nowhere  not built yet: others\n",
        "2 requirements: 1 checked at a quoted place, 1 proven by tests, 1 nowhere\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
    let (fine, text) = said(LIST, CHECKED, &["--check"]);
    assert!(fine && text.contains("proven by no test that says so: AB-01\n"), "{text}");
}

#[test]
fn a_quote_that_fits_no_row_and_a_row_that_is_nowhere_without_a_reason_are_refused() {
    for (code, why) in [
        ("//= AB-03 A standard 2.1: \"MUST be so\"\n", "quotes AB-03, which is in no row"),
        ("//= AB-01 A standard 2.1: \"SHOULD be so\"\n", "in other words than its row"),
        ("//= AB-01 Another standard 2.1: \"MUST be so\"\n", "from Another standard 2.1, its row from A standard 2.1"),
        ("//= AB-01 MUST be so\n", "is neither `//= ID source"),
        ("//= AB-03\n#[test]\nfn proves() {}\n", "names AB-03, which is in no row"),
        ("//= AB-01\nfn proves_nothing() {}\n", "stands above no test"),
        ("//= AB-01\n", "stands above no test"),
        ("", "AB-01 is neither checked nor proven"),
        ("//= AB-02\n#[test]\nfn proves() {}\n", "AB-02 is said to be nowhere (not built yet: others)"),
    ] {
        let (fine, text) = said(LIST, code, &["--check"]);
        assert!(!fine && text.contains(why), "{code:?}: {text}");
    }
    let twice = format!("{LIST}{}", LIST.lines().nth(2).expect("a row"));
    let (fine, text) = said(&twice, CHECKED, &["--check"]);
    assert!(!fine && text.contains("has AB-01 a second time"), "{text}");
    assert!(!said("", CHECKED, &["--check"]).0, "an empty list");
    assert!(!said(LIST, CHECKED, &["--what"]).0, "another argument");
}
