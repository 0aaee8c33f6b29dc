//! The main job, shown: a device proves its TPM, its workloads hold SVIDs, online and offline.
//!
//!   demo          runs it and leaves nothing behind
//!   demo --keep   leaves the lab up and says how to look around, until Enter or Ctrl-C
//!
//! Ctrl-C ends it at the next step, and whatever the lab made goes with it.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, binary, wait_for};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::workload_client;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Two workloads and a stranger: numbers need no accounts.
const ALICE: u32 = 60_001;
const BOB: u32 = 60_002;
const STRANGER: u32 = 60_003;
/// For whom Alice's token is.
const SERVICE: &str = "https://vault.example.org";

const USAGE: &str = "demo          shows the main job on a software TPM and a software HSM, and leaves nothing behind
demo --keep   leaves the lab up and says how to look around, until Enter or Ctrl-C
";
/// Exit code for a wrong command line. Source: sysexits.h, EX_USAGE.
const EXIT_USAGE: u8 = 64;
/// What a shell hears of a process that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let keep = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => false,
        ["--keep"] => true,
        ["--help" | "-h" | "-help"] => {
            // Whoever closed the pipe has read enough.
            let _ = io::stdout().write_all(USAGE.as_bytes());
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let (interrupted, interruption) = watch_for_ctrl_c();
    match run(keep, interrupted.clone(), &interruption) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(error.as_ref()) => ExitCode::FAILURE,
        Err(_) if interrupted.load(Ordering::Relaxed) => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) => {
            eprintln!("\n  ✗ {error}");
            ExitCode::FAILURE
        }
    }
}

/// Raised, and told, at the first Ctrl-C. The handler is the process's alone: programs that the lab starts do not inherit it.
fn watch_for_ctrl_c() -> (Arc<AtomicBool>, mpsc::Receiver<()>) {
    let interrupted = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let raised = interrupted.clone();
    std::thread::spawn(move || {
        let waited = runtime().is_ok_and(|runtime| runtime.block_on(tokio::signal::ctrl_c()).is_ok());
        raised.store(waited, Ordering::Relaxed);
        // The demo may be over.
        let _ = sender.send(());
    });
    (interrupted, receiver)
}

fn is_closed_pipe(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run(keep: bool, interrupted: Arc<AtomicBool>, interruption: &mpsc::Receiver<()>) -> Outcome<()> {
    let mut story = Story::begin(interrupted)?;
    story.chapter("A TPM maker certifies a device's endorsement key")?;
    let maker = Manufacturer::new("Toy TPM Works")?;
    let mut device = Device::manufacture(&maker);
    story.fact(&format!("endorsement key {}", device.ek_sha256()))?;

    story.chapter("A server starts; its CA key is made in a PKCS#11 token and cannot leave it")?;
    let mut server = Server::start(&ServerOptions::default());
    story.fact(&format!("token {:?} (SoftHSM), trust domain {TRUST_DOMAIN}", ironroot_lab::softhsm::LABEL))?;

    story.chapter("The device is enrolled from a manifest; entries say who its workloads are")?;
    server.import_devices(&format!("ek_sha256,serial,label:site\n{},SN-0001,berlin\n", device.ek_sha256()));
    let gateways = server.create_node_alias("/gateway", "site:berlin");
    server.create_entry(&gateways, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    server.create_entry(&gateways, "/bob", &[&format!("unix:uid:{BOB}")], &[]);
    let own = nix::unistd::geteuid().as_raw();
    server.create_entry(&gateways, "/probe", &[&format!("unix:uid:{own}")], &[]);
    story.fact("every device with label site:berlin: uid 60001 is /alice, uid 60002 is /bob")?;

    story.chapter("The agent attests: EK, AK, credential activation, quote, and a TLS key made in the TPM")?;
    device.provision(&server, &AgentOptions::default());
    device.start();
    let alice = device.expect_identity(ALICE);
    let agent = server.cli(&["agent", "show", "-spiffeID", &device.agent_id()]);
    for selector in agent.split_whitespace().filter(|word| word.starts_with("tpm2:")) {
        story.fact(selector)?;
    }

    story.chapter("Two workloads of different unix users get different X.509-SVIDs; a third process is refused")?;
    let bob = device.expect_identity(BOB);
    story.fact(&format!("uid {ALICE}: {}", alice.ids.join(", ")))?;
    story.fact(&format!("uid {BOB}: {}", bob.ids.join(", ")))?;
    require(alice.ids != bob.ids, "two workloads have the same identity")?;
    let refused = device.fetch(STRANGER).err().ok_or("a process without an entry got an identity")?;
    story.fact(&format!("uid {STRANGER}: {}", refused.lines().next().unwrap_or_default()))?;

    story.chapter("They talk mutual TLS, each requiring the other's SPIFFE ID")?;
    story.fact(&mutual_tls(&device)?)?;

    story.chapter("Alice gets a JWT-SVID for one service, signed in the token; Bob has it validated by his agent")?;
    let token = token_of_alice(&device)?;
    story.fact(&format!("for {SERVICE}: {}... ({} characters)", &token[..token.len().min(24)], token.len()))?;
    story.fact(&validated(&device, SERVICE, &token)?)?;
    let elsewhere = validated(&device, "https://elsewhere.example", &token).err().ok_or("another audience took it")?;
    story.fact(&format!("for another audience: {elsewhere}"))?;

    story.chapter("The server is killed and the device loses power: agent killed, TPM reset, memory gone")?;
    let sealed = sealed_svids(&device)?;
    server.kill();
    device.power_cycle();
    story.fact("no server, no agent, only the flash and the chip")?;
    device.start();
    let since = Instant::now();
    let (_, elapsed) = runtime()?.block_on(workload_client::first_svid(&device.socket(), since, DEADLINE))?;
    story.fact(&format!(
        "first SVID on the socket {} ms after exec, from the cache sealed to the TPM",
        elapsed.as_millis()
    ))?;
    for (uid, before) in [(ALICE, sealed.0), (BOB, sealed.1)] {
        let again = device.expect_identity(uid);
        require(again.leaves[0].serial_decimal() == before, "the workload got another SVID than the one it had")?;
        story.fact(&format!("uid {uid}: {} again, the same SVID", again.ids.join(", ")))?;
    }
    require(device.fetch(STRANGER).is_err(), "a process without an entry got an identity offline")?;
    story.fact(&format!("Alice's JWT-SVID, without a server: {}", validated(&device, SERVICE, &token)?))?;

    story.chapter("A thief copies the cache to another device")?;
    story.fact(&thief(&maker, &server, &device)?)?;

    story.chapter("The server returns and the agent catches up")?;
    server.restart();
    server.create_entry(&gateways, "/carol", &[&format!("unix:uid:{STRANGER}")], &[]);
    let carol = device.expect_identity(STRANGER);
    story.fact(&format!("registered just now, uid {STRANGER}: {}", carol.ids.join(", ")))?;

    story.end()?;
    if keep {
        look_around(&server, &device, interruption)?;
    }
    Ok(())
}

/// Alice serves, Bob calls; what Alice answered.
fn mutual_tls(device: &Device) -> Outcome<String> {
    let mut serve = device.command_as(ALICE, "lab-workload");
    let mut serving = serve.arg("serve").arg(device.socket()).stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(serving.stdout.take().ok_or("no output")?).lines();
    let port = output.next().ok_or("the serving workload ended")??;
    let alice = format!("spiffe://{TRUST_DOMAIN}/alice");
    let dialled =
        device.command_as(BOB, "lab-workload").arg("dial").arg(device.socket()).args([&port, &alice]).output()?;
    serving.kill().or_else(|_| serving.wait().map(drop))?;
    serving.wait()?;
    require(dialled.status.success(), &format!("mutual TLS failed: {}", String::from_utf8_lossy(&dialled.stderr)))?;
    Ok(String::from_utf8_lossy(&dialled.stdout).trim().to_owned())
}

/// A JWT-SVID of Alice's for the service.
fn token_of_alice(device: &Device) -> Outcome<String> {
    let answer = device.api(ALICE, &["fetch", "jwt", "-audience", SERVICE, "-output", "json"]);
    require(answer.status.success(), &format!("no JWT-SVID: {}", String::from_utf8_lossy(&answer.stderr).trim()))?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout)?;
    Ok(answer[0]["svids"][0]["svid"].as_str().ok_or("an answer without a token")?.to_owned())
}

/// What Bob's agent says of a token: whose it is, or why it is refused.
fn validated(device: &Device, audience: &str, token: &str) -> Outcome<String> {
    let answer = device.api(BOB, &["validate", "jwt", "-audience", audience, "-svid", token]);
    if !answer.status.success() {
        return Err(String::from_utf8_lossy(&answer.stderr).trim().into());
    }
    let said = String::from_utf8_lossy(&answer.stdout).into_owned();
    let subject = said.lines().find(|line| line.contains("spiffe://")).ok_or("an answer without a subject")?;
    Ok(format!("valid, {}", subject.split_whitespace().last().unwrap_or_default()))
}

/// Waits until the cache on flash holds what the workloads hold; their serials.
fn sealed_svids(device: &Device) -> Outcome<(String, String)> {
    device.expect_sealed(3);
    let serial = |uid| device.fetch(uid).map(|fetched| fetched.leaves[0].serial_decimal());
    Ok((serial(ALICE)?, serial(BOB)?))
}

/// Another device of the same maker, with the first one's flash; what its agent said of it.
fn thief(maker: &Manufacturer, server: &Server, victim: &Device) -> Outcome<String> {
    let mut thief = Device::manufacture(maker);
    thief.provision_with_bundle(
        &std::fs::read_to_string(victim.bundle_path())?,
        server.port(),
        &AgentOptions::default(),
    );
    copy_directory(&victim.data_directory(), &thief.data_directory())?;
    thief.start();
    let warned = || thief.log().lines().find(|line| line.contains("the sealed cache is refused")).map(str::to_owned);
    let warning = wait_for(DEADLINE, warned).ok_or_else(|| format!("no warning: {}", thief.log()))?;
    require(thief.fetch(ALICE).is_err(), "a stolen cache gave an identity")?;
    let why = warning.split_once("error=").map_or(warning.as_str(), |(_, why)| why);
    Ok(format!("nothing served; its agent says: {why}"))
}

fn copy_directory(from: &Path, to: &Path) -> Outcome<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn look_around(server: &Server, device: &Device, interruption: &mpsc::Receiver<()>) -> Outcome<()> {
    let admin = format!("-socketPath {}", server.socket().display());
    let verbs = |verbs: &str| format!("  {} {verbs} {admin}", binary("ironroot-server").display());
    let mut lines = vec!["\nThe lab stays up. Look around from another terminal:\n".to_owned()];
    lines.extend(["agent list", "entry show", "device list", "bundle show"].map(verbs));
    lines.push(format!(
        "  setpriv --reuid={ALICE} --regid={ALICE} --clear-groups {} api fetch x509 -socketPath {}",
        binary("ironroot-agent").display(),
        device.socket().display()
    ));
    lines.push(format!("  tail -f {}\n\nEnter or Ctrl-C ends it: ", device.log_path().display()));
    let mut out = io::stdout().lock();
    out.write_all(lines.join("\n").as_bytes())?;
    out.flush()?;
    wait_for_enter(interruption);
    Ok(())
}

/// Until somebody presses Enter, closes standard input, or presses Ctrl-C.
fn wait_for_enter(interruption: &mpsc::Receiver<()>) {
    let (sender, entered) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = io::stdin().lock().read_line(&mut String::new());
        let _ = sender.send(());
    });
    while entered.try_recv().is_err() && interruption.recv_timeout(Duration::from_millis(50)).is_err() {}
}

fn require(holds: bool, claim: &str) -> Outcome<()> {
    if holds { Ok(()) } else { Err(claim.into()) }
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Progress for a person; each step is also a place to stop.
struct Story {
    began: Instant,
    chapters: u32,
    interrupted: Arc<AtomicBool>,
}

impl Story {
    fn begin(interrupted: Arc<AtomicBool>) -> Outcome<Self> {
        let story = Self { began: Instant::now(), chapters: 0, interrupted };
        story.say("Ironroot: a device boots, proves its TPM, and its workloads hold SVIDs, online and offline")?;
        Ok(story)
    }

    fn chapter(&mut self, title: &str) -> Outcome<()> {
        self.chapters += 1;
        self.say(&format!("\n[{:>5.1} s] {}. {title}", self.began.elapsed().as_secs_f32(), self.chapters))
    }

    fn fact(&self, text: &str) -> Outcome<()> {
        self.say(&format!("          ✓ {text}"))
    }

    fn end(&self) -> Outcome<()> {
        let took = self.began.elapsed().as_secs_f32();
        self.say(&format!(
            "\nDone in {took:.1} s: attested, served, told apart, offline after a power cut, useless to a thief, caught up."
        ))
    }

    /// One line, unless nobody wants more: the reader went away, or Ctrl-C was pressed.
    fn say(&self, line: &str) -> Outcome<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        Ok(writeln!(io::stdout().lock(), "{line}")?)
    }
}
