//! What scripts of SPIRE's rely on: flags, exit codes, where answers go. Asked of both makes' programs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use ironroot_lab::deployment::{TRUST_DOMAIN, binary};
use ironroot_lab::spire::{Times, spire_binary};

use crate::deployment::{AnyServer, Maker};

/// The verbs that both have.
const SERVER_VERBS: [&str; 43] = [
    "run",
    "validate",
    "healthcheck",
    "agent ban",
    "agent count",
    "agent evict",
    "agent list",
    "agent purge",
    "agent show",
    "bundle show",
    "bundle list",
    "bundle set",
    "bundle delete",
    "bundle count",
    "federation create",
    "federation update",
    "federation delete",
    "federation list",
    "federation show",
    "federation refresh",
    "entry create",
    "entry update",
    "entry delete",
    "entry show",
    "entry count",
    "token generate",
    "x509 mint",
    "localauthority x509 show",
    "localauthority x509 prepare",
    "localauthority x509 activate",
    "localauthority x509 taint",
    "localauthority x509 revoke",
    "localauthority jwt show",
    "localauthority jwt prepare",
    "localauthority jwt activate",
    "localauthority jwt taint",
    "localauthority jwt revoke",
    "upstreamauthority taint",
    "upstreamauthority revoke",
    "logger get",
    "logger set",
    "logger reset",
    "debug getinfo",
];
const AGENT_VERBS: [&str; 5] = ["run", "validate", "healthcheck", "api fetch x509", "api watch"];

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn every_flag_of_every_verb_that_both_have_is_known_here() {
    let server = SERVER_VERBS.map(|verb| ("spire-server", "ironroot-server", verb));
    let agent = AGENT_VERBS.map(|verb| ("spire-agent", "ironroot-agent", verb));
    for (theirs, ours, verb) in server.into_iter().chain(agent) {
        let wanted = flags(spire_binary(theirs), verb);
        assert!(wanted.len() > 1, "{theirs} {verb} tells its flags: {wanted:?}");
        let known = flags(binary(ours), verb);
        let missing: Vec<_> = wanted.difference(&known).collect();
        assert!(missing.is_empty(), "{ours} {verb} lacks {missing:?}");
    }
}

/// The long flags that `-help` of `verb` tells of: `  -name` in Go's, `  --name` in ours.
fn flags(program: PathBuf, verb: &str) -> BTreeSet<String> {
    let output = Command::new(program).args(verb.split(' ')).arg("-h").output().expect("it starts");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("text");
    let name = |line: &str| {
        let flag = line.trim_start().strip_prefix('-')?.trim_start_matches('-');
        let name: String = flag.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        (name.len() > 1 && name != "help").then_some(name)
    };
    said.lines().filter_map(name).collect()
}

/// A command line, and whether what it prints on standard output is the same to the letter.
struct Line {
    arguments: &'static str,
    same_words: bool,
}

const fn same(arguments: &'static str) -> Line {
    Line { arguments, same_words: true }
}

const fn like(arguments: &'static str) -> Line {
    Line { arguments, same_words: false }
}

/// In this order; TD stands for the trust domain's ID.
const LINES: &[Line] = &[
    same("healthcheck"),
    same("healthcheck -verbose"),
    like("token generate -ttl 99999999"),
    like("token generate -ttl 0"),
    like("token generate -spiffeID nonsense"),
    same("agent list"),
    same("agent count"),
    same("agent list -output json"),
    same("agent purge"),
    like("agent show"),
    same("agent show -spiffeID TD/spire/agent/x"),
    same("agent ban -spiffeID TD/workload"),
    same("agent evict -spiffeID TD/workload"),
    same("agent evict -spiffeID TD/spire/agent/x"),
    like("bundle show"),
    like("bundle show -format PEM"),
    like("bundle show -format SPIFFE"),
    same("bundle show -format x"),
    same("bundle count"),
    same("bundle list"),
    same("bundle list -output json"),
    like("bundle list -id spiffe://other.test"),
    like("bundle list -id TD"),
    like("bundle set"),
    like("bundle delete"),
    like("bundle delete -id spiffe://other.test"),
    like("bundle delete -id spiffe://other.test -mode x"),
    same("federation list"),
    same("federation list -output json"),
    like("federation show"),
    like("federation show -trustDomain other.test"),
    like("federation create"),
    like(
        "federation create -trustDomain other.test -bundleEndpointURL http://other.test -bundleEndpointProfile https_web",
    ),
    same(
        "federation create -trustDomain other.test -bundleEndpointURL https://other.test:1/b -bundleEndpointProfile https_web",
    ),
    like(
        "federation create -trustDomain other.test -bundleEndpointURL https://other.test:1/b -bundleEndpointProfile https_web",
    ),
    same("federation show -trustDomain other.test"),
    same(
        "federation update -trustDomain other.test -bundleEndpointURL https://other.test:2 -bundleEndpointProfile https_spiffe -endpointSpiffeID spiffe://other.test/s",
    ),
    like(
        "federation update -trustDomain none.test -bundleEndpointURL https://other.test:2 -bundleEndpointProfile https_web",
    ),
    same("federation list"),
    like("federation refresh"),
    like("federation refresh -id spiffe://none.test"),
    like("federation refresh -id spiffe://other.test"),
    same("federation delete -id spiffe://other.test"),
    like("federation delete -id spiffe://other.test"),
    like("entry create"),
    like("entry create -nonsense"),
    same("entry create -parentID TD/p -spiffeID TD/a -selector unix:uid:1 -entryID e1"),
    like("entry create -parentID TD/p -spiffeID TD/a -selector unix:uid:1 -entryID e1"),
    like("entry create -parentID TD/p -spiffeID TD/b -selector unix:uid:2 -entryID e2 -output JSON"),
    same("entry create -parentID TD/p -spiffeID TD/c -selector unix:uid:3 -entryID e3 -x509SVIDTTL 0x10 -storeSVID"),
    same("entry create -parentID TD/p -spiffeID TD/d -selector unix:uid:4 -entryID e4 -dns _srv._tcp.example.org"),
    like("entry create -parentID TD/p -spiffeID TD/e -selector unix:uid:5 -federatesWith spiffe://other.test"),
    like("entry create -parentID TD/p -spiffeID TD/f -selector unix"),
    like("entry create -data /nonexistent"),
    same("entry count"),
    same("entry show -entryID e1"),
    same("entry show -spiffeID TD/none"),
    same("entry show -entryID none"),
    same("entry update -entryID e1 -parentID TD/p -spiffeID TD/a -selector unix:uid:1 -hint h"),
    like("entry update -entryID none -parentID TD/p -spiffeID TD/a -selector unix:uid:1"),
    like("entry update"),
    like("entry delete"),
    same("entry delete -entryID none"),
    same("entry delete -entryID e1"),
    same("entry count"),
    like("entry show -output x"),
    same("logger get"),
    same("logger set -level warn"),
    same("logger set -level PANIC -output json"),
    same("logger get -output json"),
    like("logger set"),
    like("logger set -level loud"),
    same("logger reset"),
    like("localauthority x509 activate"),
    like("localauthority x509 activate -authorityID ff"),
    like("localauthority x509 taint"),
    like("localauthority x509 taint -authorityID ff"),
    like("localauthority x509 revoke"),
    like("localauthority x509 revoke -authorityID ff"),
    like("localauthority x509 show"),
    like("localauthority x509 prepare -output json"),
    like("localauthority x509 prepare"),
    like("localauthority jwt activate"),
    like("localauthority jwt activate -authorityID ff"),
    like("localauthority jwt taint"),
    like("localauthority jwt taint -authorityID ff"),
    like("localauthority jwt revoke"),
    like("localauthority jwt revoke -authorityID ff"),
    like("localauthority jwt show"),
    like("localauthority jwt prepare -output json"),
    like("localauthority jwt prepare"),
    like("upstreamauthority taint"),
    like("upstreamauthority taint -subjectKeyID ff"),
    like("upstreamauthority revoke"),
    like("upstreamauthority revoke -subjectKeyID ff"),
    like("debug getinfo"),
    like("debug getinfo -output json"),
    like("x509 mint"),
    like("x509 mint -spiffeID TD/m -ttl 1h -dns a.example.org"),
    like("x509 mint -spiffeID TD/m -output json"),
    like("x509 mint -spiffeID TD/spire/agent/x"),
    like("x509 mint -spiffeID spiffe://other.test/m"),
    like("x509 mint -spiffeID TD/m -dns *.b -dns a.b"),
    like("entry"),
    like("entry nonsense"),
];

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn commands_end_and_answer_as_spires_do() {
    let times = Times { ca: "24h", agent: "1h", x509_svid: "1h" };
    let (theirs, ours) = (AnyServer::start(Maker::Spire, times), AnyServer::start(Maker::Ironroot, times));
    for line in LINES {
        let text = line.arguments.replace("TD", &format!("spiffe://{TRUST_DOMAIN}"));
        let arguments: Vec<&str> = text.split(' ').collect();
        let [wanted, got] = [(&theirs, Maker::Spire), (&ours, Maker::Ironroot)].map(|(server, maker)| {
            let output = server.output(maker, &arguments);
            (output.status.code(), String::from_utf8(output.stdout).expect("text"))
        });
        assert_eq!(got.0, wanted.0, "exit code of {}", line.arguments);
        assert_eq!(got.1.is_empty(), wanted.1.is_empty(), "standard output of {}:\n{}", line.arguments, got.1);
        if line.same_words {
            assert_eq!(got.1.trim_end(), wanted.1.trim_end(), "standard output of {}", line.arguments);
        }
    }
}

/// Without a server.
#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn programs_end_as_spires_do() {
    let directory = tempfile::tempdir().expect("directory");
    let bad = directory.path().join("bad.conf");
    std::fs::write(&bad, "server {\n trust_domain = \"\"\n}\nagent {\n trust_domain = \"\"\n}\n").expect("written");
    let bad = bad.to_str().expect("text");
    for arguments in
        [&["nonsense"][..], &[], &["-help"], &["--version"], &["validate", "-config", bad], &["run", "-config", bad]]
    {
        for (theirs, ours) in [("spire-server", "ironroot-server"), ("spire-agent", "ironroot-agent")] {
            let [wanted, got] = [spire_binary(theirs), binary(ours)].map(|program| {
                let output = Command::new(program).args(arguments).output().expect("it starts");
                // Help is an answer here, and goes where answers go.
                (output.status.code(), output.stdout.is_empty() || arguments == ["-help"])
            });
            assert_eq!(got, wanted, "exit code, and whether standard output is empty, of {ours} {arguments:?}");
        }
    }
}
