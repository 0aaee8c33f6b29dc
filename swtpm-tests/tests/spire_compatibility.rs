//! `docs/spire-compatibility.md` says what is so: its rows against the policy, the command lines and the configuration's reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ironroot_lab::deployment::binary;
use ironroot_server::endpoints::policy::POLICY;

/// What a row says of SPIRE's thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    Works,
    /// It is there, and what differs is said.
    Differs,
    /// Known, and answered as SPIRE answers what is switched off.
    Off,
    /// Known, and passed over with a warning.
    PassedOver,
    Absent,
}

/// A row of one of the page's tables.
struct Row {
    name: String,
    here: Here,
    rest: String,
}

impl Row {
    /// What stands first between backticks: of a key, how it is written.
    fn example(&self) -> &str {
        self.rest.split('`').nth(1).unwrap_or_else(|| panic!("{} has no example", self.name))
    }
}

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/spire-compatibility.md")).expect("the page")
}

/// The rows of the table under `heading`.
fn rows(heading: &str) -> Vec<Row> {
    let page = page();
    let section = page.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("the page has no section {heading:?}"));
    let rows: Vec<Row> = section.lines().filter(|line| line.starts_with("| `")).map(row).collect();
    assert!(!rows.is_empty(), "{heading} has no rows");
    rows
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
    let [name, here, rest] = cells[..] else { panic!("three cells: {line}") };
    let here = match here {
        "works" => Here::Works,
        "off" => Here::Off,
        "passed over" => Here::PassedOver,
        "absent" => Here::Absent,
        differs if differs.starts_with("differs: ") => Here::Differs,
        other => panic!("{other:?} is nothing that a row can say: {line}"),
    };
    Row { name: name.trim_matches('`').to_owned(), here, rest: rest.to_owned() }
}

fn named(rows: &[Row], which: impl Fn(Here) -> bool) -> BTreeSet<String> {
    rows.iter().filter(|row| which(row.here)).map(|row| row.name.clone()).collect()
}

fn there(here: Here) -> bool {
    matches!(here, Here::Works | Here::Differs)
}

#[test]
fn the_rpcs_that_the_page_has_as_served_are_those_of_the_policy() {
    let rows = rows("RPCs of the server");
    let served: BTreeSet<String> =
        POLICY.iter().filter_map(|method| method.path.strip_prefix("/spire.api.server.")).map(str::to_owned).collect();
    assert_eq!(named(&rows, |here| there(here) || here == Here::Off), served);
    assert!(named(&rows, |here| here == Here::Absent).is_disjoint(&served));
}

#[test]
fn the_commands_that_the_page_has_are_those_of_both_command_lines() {
    let lines = [
        ("spire-server", ironroot_server::cli::Cli::description()),
        ("spire-agent", ironroot_agent::cli::Cli::description()),
    ];
    for (program, description) in lines {
        let (theirs, ours) = (rows(&format!("Commands of {program}")), leaves(&description, ""));
        let works = named(&theirs, there);
        assert!(works.is_subset(&ours), "{program}: {:?} are no commands", works.difference(&ours));
        let absent = named(&theirs, |here| here == Here::Absent);
        assert!(absent.is_disjoint(&ours), "{program}: {:?} are there", absent.intersection(&ours));
        let of_ours: BTreeSet<String> = ours.difference(&works).cloned().collect();
        let own = format!("Commands of {} alone", program.replace("spire", "ironroot"));
        assert_eq!(named(&rows(&own), there), of_ours, "{own}");
    }
}

/// The commands that do something, by all their words.
fn leaves(command: &clap::Command, before: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for sub in command.get_subcommands() {
        let name = format!("{before}{}", sub.get_name());
        if !sub.has_subcommands() || !sub.is_subcommand_required_set() {
            found.insert(name.clone());
        }
        found.extend(leaves(sub, &format!("{name} ")));
    }
    found
}

/// All keys of a table in one file: mistakes are told all at once, each with its key.
#[test]
fn each_configuration_key_of_the_page_is_taken_as_its_row_says() {
    for (program, block) in [("ironroot-server", "server"), ("ironroot-agent", "agent")] {
        let keys = rows(&format!("Keys of the {block} block"));
        let experimental = rows(&format!("Keys of {block}.experimental"));
        let examples = |rows: &[Row]| -> String { rows.iter().map(|row| format!("{}\n", row.example())).collect() };
        let telemetry = rows("Keys of the telemetry block");
        let text = format!(
            "{block} {{\n{}experimental {{\n{}}}\n}}\ntelemetry {{\n{}}}\n",
            examples(&keys),
            examples(&experimental),
            examples(&telemetry)
        );
        let said = validated(program, &text);
        let tables = [
            (block.to_owned(), &keys),
            (format!("{block}.experimental"), &experimental),
            ("telemetry".to_owned(), &telemetry),
        ];
        for (prefix, rows) in tables {
            for Row { name, here, .. } in rows {
                let about = format!(": {prefix}.{name}");
                let lines: Vec<&str> = said.lines().filter(|line| line.contains(&about)).collect();
                let heard = |words: &str| lines.iter().any(|line| line.contains(words));
                let found = match (heard("not supported by"), heard("has no meaning in")) {
                    (true, _) => Here::Absent,
                    (_, true) => Here::PassedOver,
                    _ if heard("unknown") => panic!("{prefix}.{name} is not known: {lines:?}"),
                    _ => Here::Works,
                };
                let says = if *here == Here::Differs { Here::Works } else { *here };
                assert_eq!(says, found, "{prefix}.{name}: {lines:?}");
            }
        }
    }
}

fn validated(program: &str, text: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), text).expect("written");
    let output = Command::new(binary(program)).args(["validate", "-config"]).arg(file.path()).output().expect("runs");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut functions: BTreeMap<String, PathBuf> = BTreeMap::new();
    for room in ["agent", "api", "attest", "hsm", "server", "swtpm-tests"] {
        for path in sources(&root.join(room)) {
            let text = fs::read_to_string(&path).expect("a source");
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            functions.extend(names.map(|name| (name.to_owned(), path.clone())));
        }
    }
    let tables = [
        ("RPCs of the server", 0),
        ("RPCs of the agent", 0),
        ("Commands of spire-server", 0),
        ("Commands of ironroot-server alone", 0),
        ("Commands of spire-agent", 0),
        ("Commands of ironroot-agent alone", 0),
        // Behind the example.
        ("Keys of the server block", 1),
        ("Keys of server.experimental", 1),
        ("Keys of the agent block", 1),
        ("Keys of agent.experimental", 1),
        ("Keys of the telemetry block", 1),
    ];
    for (heading, examples) in tables {
        for row in rows(heading).iter().filter(|row| there(row.here)) {
            let tests: Vec<&str> = row.rest.split('`').skip(1).step_by(2).skip(examples).collect();
            assert!(!tests.is_empty(), "{heading}: {} names no test", row.name);
            for test in tests {
                assert!(functions.contains_key(test), "{heading}: {}: there is no test {test}", row.name);
            }
        }
    }
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let visit = |path: PathBuf| match path.is_dir() {
        true => sources(&path),
        false => vec![path],
    };
    entries.flat_map(visit).filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}
