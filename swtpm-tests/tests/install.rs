//! `scripts/install`, as who builds from source uses it, into a directory that stands for the root.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ironroot_lab::deployment::binary;
use tempfile::TempDir;

fn install(root: &Path, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/install");
    let server = binary("ironroot-server");
    let binaries = server.parent().expect("a directory");
    let mut command = Command::new(script);
    command.args(arguments).env("DESTDIR", root).env("IRONROOT_BIN", binaries).output().expect("it starts")
}

fn installed(root: &Path, arguments: &[&str]) -> String {
    let output = install(root, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every file below, by its path from there.
fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(place) = left.pop() {
        match fs::read_dir(&place) {
            Ok(entries) => left.extend(entries.map(|entry| entry.expect("readable").path())),
            Err(_) => drop(found.insert(place.strip_prefix(root).expect("below").display().to_string())),
        }
    }
    found
}

fn named(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const CONFIGURATIONS: [&str; 2] = ["etc/ironroot/agent.conf", "etc/ironroot/server.conf"];

#[test]
fn what_is_installed_fits_together_and_goes_again_without_what_is_the_operators() {
    let root = TempDir::new().expect("directory");
    installed(root.path(), &["--prefix", "/opt/ironroot"]);
    let programs = ["opt/ironroot/bin/ironroot-agent", "opt/ironroot/bin/ironroot-server"];
    let others = [
        "opt/ironroot/lib/systemd/system/ironroot-agent.service",
        "opt/ironroot/lib/systemd/system/ironroot-server.service",
        "opt/ironroot/lib/sysusers.d/ironroot-agent.conf",
        "opt/ironroot/lib/sysusers.d/ironroot-server.conf",
        "opt/ironroot/lib/tmpfiles.d/ironroot-agent.conf",
    ];
    let all = [&programs[..], &others[..], &CONFIGURATIONS[..]].concat();
    assert_eq!(files(root.path()), named(&all));
    for (daemon, configuration) in [("agent", CONFIGURATIONS[0]), ("server", CONFIGURATIONS[1])] {
        let program = root.path().join(format!("opt/ironroot/bin/ironroot-{daemon}"));
        let mut validate = Command::new(&program);
        validate.args(["validate", "-syntaxOnly", "-config"]).arg(root.path().join(configuration));
        let output = validate.output().expect("what is installed starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let unit = root.path().join(format!("opt/ironroot/lib/systemd/system/ironroot-{daemon}.service"));
        let unit = fs::read_to_string(unit).expect("the unit");
        let start = format!("ExecStart=/opt/ironroot/bin/ironroot-{daemon} run -config /etc/ironroot/{daemon}.conf");
        assert!(unit.contains(&start) && !unit.contains("/usr/bin/ironroot"), "{unit}");
        // journald drops no audit line.
        assert_eq!(unit.contains("\nLogRateLimitIntervalSec=0\n"), daemon == "server", "{unit}");
    }
    installed(root.path(), &["--prefix", "/opt/ironroot", "--uninstall"]);
    assert_eq!(files(root.path()), named(&CONFIGURATIONS));
}

#[test]
fn an_upgrade_keeps_a_changed_configuration_and_lays_the_new_one_beside_it() {
    let root = TempDir::new().expect("directory");
    installed(root.path(), &["server"]);
    let configuration = root.path().join("etc/ironroot/server.conf");
    let first = fs::read_to_string(&configuration).expect("installed");
    let again = installed(root.path(), &["server"]);
    assert!(!again.contains(".conf.new"), "nothing is laid beside one that is not changed: {again}");
    fs::write(&configuration, "# mine\n").expect("changed");
    let said = installed(root.path(), &["server"]);
    let beside = root.path().join("etc/ironroot/server.conf.new");
    assert!(said.contains("server.conf.new"), "{said}");
    assert_eq!(fs::read_to_string(&configuration).expect("kept"), "# mine\n");
    assert_eq!(fs::read_to_string(beside).expect("beside it"), first);
    assert!(!root.path().join("usr/local/bin/ironroot-agent").exists(), "only what was asked for");
}

#[test]
fn mistakes_are_refused_before_anything_is_written() {
    let root = TempDir::new().expect("directory");
    for arguments in [&["--prefix", "opt"][..], &["agnet"], &["--prefix"]] {
        assert!(!install(root.path(), arguments).status.success(), "{arguments:?}");
    }
    assert_eq!(files(root.path()), named(&[]));
}
