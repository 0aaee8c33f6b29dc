//! `docs/workloads.md`: its programs and configurations, run as they stand there.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use ironroot_lab::child;
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, binary, expect_within, free_port,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Each language's programs have an identity of that name. They run as one user, told apart by a group.
const LANGUAGES: [&str; 4] = ["go", "python", "java", "rust"];
const FIRST_GROUP: u32 = 61_021;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What scripts/setup --tests has prepared.
fn prepared(path: &str) -> PathBuf {
    let path = root().join("target").join(path);
    assert!(path.exists(), "{} is missing: run scripts/setup --tests", path.display());
    path
}

/// The blocks of the page in this language.
fn snippets(language: &str) -> Vec<String> {
    let page = fs::read_to_string(root().join("docs/workloads.md")).expect("the page");
    let blocks = page.split("\n```").skip(1).step_by(2);
    blocks.filter_map(|block| Some(block.strip_prefix(language)?.strip_prefix('\n')?.to_owned() + "\n")).collect()
}

fn snippet(language: &str) -> String {
    let [snippet] = &snippets(language)[..] else { panic!("one block of {language}") };
    snippet.clone()
}

/// A device with an identity for each language, of a few seconds, and the page's programs.
struct Lab {
    _server: Server,
    device: Device,
    room: TempDir,
}

/// A program that is asked to stop when the test is over.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

impl Lab {
    fn start() -> Self {
        let server = Server::start(&ServerOptions::default());
        let token: serde_json::Value =
            serde_json::from_str(&server.cli(&["token", "generate", "-output", "json"])).expect("JSON");
        let token = token["value"].as_str().expect("a token").to_owned();
        let agent = format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/{token}");
        for (language, gid) in LANGUAGES.iter().zip(FIRST_GROUP..) {
            let selector = format!("unix:supplementary_gid:{gid}");
            let more = ["-dns", "localhost", "-x509SVIDTTL", "10"];
            server.create_entry(&agent, &format!("/{language}"), &[&selector], &more);
        }
        let mut device = Device::without_tpm();
        device.provision(
            &server,
            &AgentOptions { join_token: Some(token), key_manager: "memory", ..AgentOptions::default() },
        );
        device.start();
        let room = tempfile::Builder::new().prefix("ironroot-page-").tempdir().expect("a directory");
        let lab = Self { _server: server, device, room };
        let served = || lab.run("rust", &binary("ironroot-agent"), &["api", "fetch", "x509"]).status.success();
        expect_within(DEADLINE, "an identity is served", || lab.device.log(), served);
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }

    /// `program` with the identity of `language`.
    fn command(&self, language: &str, program: &Path) -> Command {
        let gid = LANGUAGES.iter().zip(FIRST_GROUP..).find(|(name, _)| **name == language).expect("known").1;
        let mut command = child::dies_with_us("setpriv");
        command.args(["--groups", &gid.to_string(), "--"]).arg(program);
        command.env("SPIFFE_ENDPOINT_SOCKET", format!("unix:{}", self.device.socket().display()));
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, language: &str, program: &Path, words: &[&str]) -> Output {
        self.command(language, program).args(words).output().expect("it runs")
    }

    /// The page's program in this language.
    fn program(&self, language: &str) -> Command {
        match language {
            "go" => self.command(language, &self.path("go/workload")),
            "python" => {
                let mut command = self.command(language, &prepared("python/bin/python"));
                command.arg(self.path("workload.py"));
                command
            }
            "java" => {
                let mut command = self.command(language, Path::new("java"));
                let classes = format!("{}/*:{}", prepared("java").display(), self.room.path().display());
                command.args(["-XX:TieredStopAtLevel=1", "-cp", &classes, "Workload"]);
                command
            }
            "rust" => self.command(language, &example()),
            other => panic!("no {other:?}"),
        }
    }

    /// Compiles what must be.
    fn with_programs(self) -> Self {
        fs::write(self.path("workload.py"), snippet("python")).expect("written");
        fs::write(self.path("Workload.java"), snippet("java")).expect("written");
        let mut javac = Command::new("javac");
        javac.arg("-cp").arg(format!("{}/*", prepared("java").display())).arg("-d").arg(self.room.path());
        compiled(javac.arg(self.path("Workload.java")));
        let go = self.path("go");
        fs::create_dir(&go).expect("made");
        fs::write(go.join("main.go"), snippet("go")).expect("written");
        for file in ["go.mod", "go.sum"] {
            fs::copy(root().join("swtpm-tests/clients/go").join(file), go.join(file)).expect("copied");
        }
        let ours = root().join("target/python/bin/go");
        let mut build = Command::new(if ours.exists() { ours.as_path() } else { Path::new("go") });
        build.args(["build", "-o", "workload", "."]).current_dir(&go);
        build.env("GOMODCACHE", prepared("go/mod")).env("GOCACHE", prepared("go").join("cache"));
        compiled(build.env("GOPROXY", "off").env("GOTOOLCHAIN", "local"));
        self
    }

    /// The program serves whoever is `peer`, until the value is dropped; and where.
    fn serve(&self, language: &str, peer: &str) -> (Running, String) {
        let (port, log) = (free_port(), self.path(&format!("{language}.log")));
        let address = format!("127.0.0.1:{port}");
        let errors = fs::File::create(&log).expect("a log");
        let mut command = self.program(language);
        command.args(["serve", &address, &id(peer)]).stdout(Stdio::null()).stderr(errors);
        let running = Running(child::spawn(command).expect("it starts"));
        let said = || fs::read_to_string(&log).unwrap_or_default();
        expect_within(DEADLINE, "it listens", said, || TcpStream::connect(&address).is_ok());
        (running, address)
    }

    /// What a client of this language is told by whoever is `peer` there.
    fn call(&self, language: &str, address: &str, peer: &str) -> Result<String, String> {
        let output = self.program(language).args(["call", address, &id(peer)]).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// A shell's lines of the page, with the directory of the page in the place that the test has for it; the last one becomes the process.
    fn shell(&self, language: &str, lines: &str) -> Command {
        let (before, last) = lines.trim_end().rsplit_once('\n').unwrap_or(("", lines));
        let lines = format!("{before}\nexec {last}");
        let programs = binary("ironroot-agent").parent().expect("a directory").display().to_string();
        let mut command = self.command(language, Path::new("sh"));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{programs}:/usr/sbin:{path}")).arg("-ec").arg(self.at_home(&lines));
        command
    }

    fn at_home(&self, text: &str) -> String {
        let shop = self.path("shop").display().to_string();
        text.replace("/run/shop", &shop).replace("/etc/shop", &shop)
    }
}

fn id(language: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/{language}")
}

fn compiled(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: run scripts/setup --tests"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Built with the tests.
fn example() -> PathBuf {
    let path = binary("ironroot-agent").with_file_name("examples").join("workload");
    assert!(path.exists(), "{} is missing: cargo build --workspace --examples", path.display());
    path
}

#[test]
fn the_rust_program_of_the_page_is_the_one_that_is_built() {
    let file = fs::read_to_string(root().join("swtpm-tests/examples/workload.rs")).expect("there");
    let (head, program) = file.split_once("\n\n").expect("a line about it");
    assert!(head.starts_with("//! "));
    assert_eq!(program, snippet("rust"));
}

//= WLA-01 WLA-06
#[test]
fn programs_of_the_page_in_every_language_speak_mutual_tls_with_each_other_and_with_nobody_else() {
    let lab = Lab::start().with_programs();
    for server in LANGUAGES {
        for client in LANGUAGES {
            let (_running, address) = lab.serve(server, client);
            let told = lab.call(client, &address, server);
            assert_eq!(told, Ok(format!("{server} heard {client}\n")), "{client} asks {server}");
        }
        let (_running, address) = lab.serve(server, "somebody-else");
        let other = lab.call("go", &address, server);
        assert!(other.is_err(), "{server} lets in whom it should not: {other:?}");
    }
    let (_running, address) = lab.serve("go", "go");
    for client in LANGUAGES {
        let fooled = lab.call(client, &address, "somebody-else");
        assert!(fooled.is_err(), "{client} takes anybody for a server: {fooled:?}");
    }
}

//= WLA-03 WLA-11
#[test]
fn programs_of_the_page_follow_rotations_and_validate_their_tokens() {
    let lab = Lab::start().with_programs();
    for language in LANGUAGES {
        let mut command = lab.program(language);
        command.arg("watch").stdout(Stdio::piped());
        let mut running = Running(child::spawn(command).expect("it starts"));
        let said = BufReader::new(running.0.stdout.take().expect("piped"));
        let (heard, serials) = mpsc::channel();
        thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| heard.send(line)));
        let first = serials.recv_timeout(DEADLINE).expect("a first certificate");
        let next = serials.recv_timeout(DEADLINE).expect("a next one");
        assert!(first != next && !first.is_empty(), "{language}: {first} and {next}");
    }
    for language in ["go", "python", "java"] {
        let output = lab.program(language).args(["jwt", "https://shop.example.org"]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim(), id(language), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn nginx_and_curl_know_each_other_as_the_page_says() {
    let lab = Lab::start();
    let (port, shop) = (free_port(), lab.path("shop"));
    fs::create_dir_all(shop.join("identity")).expect("made");
    // The other one has its key in a token: tests/hardware_keys.rs.
    let config = lab.at_home(&snippets("nginx")[0]).replace("8443", &port.to_string());
    fs::write(shop.join("nginx.conf"), config).expect("written");
    let [deliver, _, fetch] = &snippets("sh")[..] else { panic!("three blocks of sh") };
    let _deliver = Running(child::spawn(lab.shell("go", deliver)).expect("it starts"));
    let has = || shop.join("identity/current/svid.pem").exists();
    expect_within(DEADLINE, "an identity is delivered", || lab.device.log(), has);
    let mut nginx = lab.command("go", Path::new("/usr/sbin/nginx"));
    nginx.arg("-c").arg(shop.join("nginx.conf"));
    let _nginx = Running(child::spawn(nginx).expect("it starts (package nginx-light: scripts/setup --tests)"));
    let said = || fs::read_to_string(shop.join("error.log")).unwrap_or_default();
    expect_within(DEADLINE, "nginx listens", said, || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let directory = lab.path("client");
    fs::create_dir(&directory).expect("made");
    let mut curl = lab.shell("python", fetch);
    curl.env("DIRECTORY", &directory).env("URL", format!("https://localhost:{port}/"));
    let output = curl.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(told, "nginx heard SUCCESS\n", "{}", String::from_utf8_lossy(&output.stderr));
    let stranger = Command::new("curl").args(["-sk", &format!("https://localhost:{port}/")]).output().expect("it runs");
    let told = String::from_utf8_lossy(&stranger.stdout).into_owned();
    assert!(!told.contains("heard"), "{told}");
}
