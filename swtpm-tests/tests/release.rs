//! `scripts/release`, in a repository of its own: with packages that are built already, since building them is `scripts/package`'s.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const MANIFEST: &str = "[workspace]\nmembers = []\n\n[workspace.package]\nversion = \"1.2.3\"\n";
const CHANGES: &str = "# Changelog\n\n## Unreleased\n\n- Later.\n\n## 1.2.3 - 2027-01-31\n\n### Added\n\n- A thing.\n\n## 1.2.2 - 2026-12-01\n\n- Before.\n";
const MATERIALS: &str = r#"{"bomFormat":"CycloneDX"}"#;

/// A commit to be released, and packages of it.
struct Repository {
    directory: TempDir,
    packages: TempDir,
}

fn run(directory: &Path, program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_AUTHOR_NAME", "A"), ("GIT_COMMITTER_NAME", "A")])
        .envs([("GIT_AUTHOR_EMAIL", "a@lab.example"), ("GIT_COMMITTER_EMAIL", "a@lab.example")])
        .output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn ran(directory: &Path, program: &str, arguments: &[&str]) -> String {
    let output = run(directory, program, arguments);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Repository {
    fn new(changes: &str) -> Self {
        let made = Self { directory: TempDir::new().expect("directory"), packages: TempDir::new().expect("directory") };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/release");
        for part in ["scripts", "docs"] {
            fs::create_dir(made.at(part)).expect("directory");
        }
        fs::copy(script, made.at("scripts/release")).expect("copied");
        fs::write(made.at("Cargo.toml"), MANIFEST).expect("written");
        fs::write(made.at("docs/CHANGELOG.md"), changes).expect("written");
        fs::write(made.at(".gitignore"), "target\n").expect("written");
        for arguments in [&["init", "-q"][..], &["add", "."], &["commit", "-qm", "A version"]] {
            made.git(arguments);
        }
        made
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn git(&self, arguments: &[&str]) -> String {
        ran(self.directory.path(), "git", arguments)
    }

    fn package(&self, unit: &str, version: &str) {
        let architecture = ran(self.directory.path(), "dpkg", &["--print-architecture"]);
        let tree = TempDir::new().expect("directory");
        let documents = tree.path().join(format!("usr/share/doc/ironroot-{unit}"));
        fs::create_dir_all(&documents).expect("directory");
        fs::create_dir(tree.path().join("DEBIAN")).expect("directory");
        let control = format!(
            "Package: ironroot-{unit}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: A <a@lab.example>\nDescription: a part\n"
        );
        fs::write(tree.path().join("DEBIAN/control"), control).expect("written");
        fs::write(documents.join(format!("ironroot-{unit}.cdx.json")), MATERIALS).expect("written");
        let (from, to) = (tree.path().display().to_string(), self.packages.path().display().to_string());
        ran(self.directory.path(), "dpkg-deb", &["--root-owner-group", "-b", &from, &to]);
    }

    fn release(&self, key: Option<&Path>, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.at("scripts/release"));
        command.args(arguments).env("IRONROOT_PACKAGES", self.packages.path()).env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.envs(key.map(|key| ("IRONROOT_RELEASE_KEY", key))).output().expect("it starts")
    }

    /// What it says when it refuses; nothing is left behind then.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.release(None, arguments);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
        let left = fs::read_dir(self.at("target/releases")).map(Iterator::count).unwrap_or_default();
        assert_eq!(left, 0, "half a release");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

#[test]
fn a_release_has_packages_their_materials_source_changes_and_signed_checksums() {
    let repository = Repository::new(CHANGES);
    for unit in ["agent", "server"] {
        repository.package(unit, "1.2.3-1");
        // An older one beside it is not this release's.
        repository.package(unit, "1.2.2-1");
    }
    let key = repository.packages.path().join("key");
    ran(repository.packages.path(), "ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", "key"]);
    let output = repository.release(Some(&key), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let place = repository.at("target/releases/1.2.3");
    assert_eq!(ran(&place, "sha256sum", &["--strict", "-c", "SHA256SUMS"]).lines().count(), 6);
    assert_eq!(
        fs::read_to_string(place.join("CHANGES.md")).expect("there"),
        "# Ironroot 1.2.3\n\n### Added\n\n- A thing.\n"
    );
    assert_eq!(ran(&place, "sh", &["-c", "cat ironroot-agent_1.2.3_*.cdx.json"]), MATERIALS);
    let source = ran(&place, "tar", &["-tzf", "ironroot-1.2.3.tar.gz"]);
    assert!(source.lines().any(|line| line == "ironroot-1.2.3/scripts/release"), "{source}");
    let public = fs::read_to_string(key.with_extension("pub")).expect("there");
    fs::write(place.join("allowed"), format!("releaser {public}")).expect("written");
    let verify = "ssh-keygen -Y verify -f allowed -I releaser -n ironroot-release -s SHA256SUMS.sig < SHA256SUMS";
    ran(&place, "sh", &["-c", verify]);
}

#[test]
fn what_is_not_ready_is_named_all_at_once_and_nothing_is_made() {
    let repository = Repository::new("# Changelog\n\n## Unreleased\n\n- A thing.\n");
    repository.git(&["tag", "v1.2.3"]);
    fs::write(repository.at("Cargo.toml"), format!("{MANIFEST}# more\n")).expect("written");
    repository.git(&["commit", "-qam", "More"]);
    fs::write(repository.at("forgotten"), "").expect("written");
    for arguments in [&[][..], &["--check"]] {
        let said = repository.refused(arguments);
        for part in ["in no commit", "## 1.2.3 - YEAR-MONTH-DAY", "the tag v1.2.3 is on another commit"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

#[test]
fn packages_of_another_version_or_none_are_no_release() {
    let repository = Repository::new(CHANGES);
    repository.package("agent", "1.2.3-1");
    repository.package("server", "1.2.30-1");
    let said = repository.refused(&[]);
    assert!(said.contains("0 packages ironroot-server of version 1.2.3"), "{said}");
    let ready = repository.release(None, &["--check"]);
    assert!(ready.status.success(), "what is built is not asked by --check");
}
