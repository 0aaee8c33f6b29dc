//! The whole life of a CA on a token of another maker, and of an agent on a TPM of another maker, in the lab: for makers whose
//! software cannot be installed as a package, built by whoever runs this.
//!
//!   other-makers --pkcs11-module PATH   a PKCS#11 module, with a token labelled and with the user PIN as the lab's are
//!
//! `scripts/other-makers` prepares the token and calls this.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, wait_for};
use ironroot_lab::softhsm::SoftHsm;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "other-makers --pkcs11-module PATH";
/// Exit code for a wrong command line. Source: sysexits.h, EX_USAGE.
const EXIT_USAGE: u8 = 64;
/// A workload without privileges: a number needs no account.
const WORKLOAD: u32 = 60_001;
/// Two rotations of a CA of one minute take less.
const ROTATIONS_DEADLINE: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--pkcs11-module", module] => life_of_a_ca(Path::new(module)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("  ✗ {error}");
            ExitCode::FAILURE
        }
    }
}

/// Founded, issuing, rotated twice under a workload that never goes without, killed, found again.
fn life_of_a_ca(module: &Path) -> Outcome<()> {
    let began = Instant::now();
    let said = |what: &str| println!("[{:>5.1} s] ✓ {what}", began.elapsed().as_secs_f32());
    let options = ServerOptions { ca_ttl: "1m", agent_ttl: "30s", x509_svid_ttl: "10s", ..ServerOptions::default() };
    let mut server = Server::prepare(&options);
    use_module(&server, module)?;
    said(&format!("hsm probe: {}", probed(&server)?));
    server.restart();
    said("the CA is founded on the token and the server answers");

    let mut device = Device::without_tpm();
    let token =
        server.cli(&["token", "generate", "-spiffeID", &format!("spiffe://{TRUST_DOMAIN}/node"), "-output", "json"]);
    let token: serde_json::Value = serde_json::from_str(&token)?;
    let token = token["value"].as_str().ok_or("no join token")?.to_owned();
    server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/node"), "/w", &[&format!("unix:uid:{WORKLOAD}")], &[]);
    let options = AgentOptions { join_token: Some(token), key_manager: "disk", ..AgentOptions::default() };
    device.provision(&server, &options);
    device.start();
    device.expect_identity(WORKLOAD);
    said("an agent attests and a workload has an SVID that the token signed");

    let mut gaps = 0;
    let rotated = wait_for(ROTATIONS_DEADLINE, || {
        gaps += usize::from(device.fetch(WORKLOAD).is_err());
        (server.log().matches("CA activated").count() >= 3).then_some(())
    });
    rotated.ok_or_else(|| format!("the CA did not rotate twice in time\n{}", server.log()))?;
    said(&format!("the CA rotated twice; fetches of the workload without an answer meanwhile: {gaps}"));

    server.kill();
    server.restart();
    let before = device.expect_identity(WORKLOAD).leaves[0].serial_decimal();
    let renewed =
        wait_for(DEADLINE, || device.fetch(WORKLOAD).ok().filter(|svid| svid.leaves[0].serial_decimal() != before));
    renewed.ok_or_else(|| format!("nothing was signed after kill -9\n{}", server.log()))?;
    said("after kill -9 the keys are found again and sign");
    match gaps {
        0 => Ok(()),
        gaps => Err(format!("the workload went without an answer {gaps} times").into()),
    }
}

/// What the token is good for, by a key of each kind that lived there; an error if a CA's is not among them.
fn probed(server: &Server) -> Outcome<String> {
    let output = server.probe();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let needs = found["needs"].as_array().ok_or("no needs")?;
    if needs[0]["met"] != true {
        return Err(format!("the token is no good: {needs:?}").into());
    }
    let told = needs.iter().map(|need| format!("{} {}", need["met"], need["what"]));
    Ok(told.collect::<Vec<_>>().join(", "))
}

/// The lab's configuration with another module.
fn use_module(server: &Server, module: &Path) -> Outcome<()> {
    let config = std::fs::read_to_string(server.config_path())?;
    let ours = SoftHsm::module_path();
    let (ours, module) =
        (ours.to_str().ok_or("a path that is no text")?, module.to_str().ok_or("a path that is no text")?);
    Ok(std::fs::write(server.config_path(), config.replace(ours, module))?)
}
