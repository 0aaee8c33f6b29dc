//! The whole life of a CA on a token of another maker, and of an agent on a TPM of another maker, in the lab: for makers whose
//! software cannot be installed as a package, built by whoever runs this.
//!
//!   other-makers --pkcs11-module PATH   a PKCS#11 module, with a token labelled and with the user PIN as the lab's are
//!     --ca-key-type KIND                  root and CAs with keys of this kind, as server.conf calls it
//!     --openssl PROGRAM                   an OpenSSL that knows the kind: it verifies what the token has signed, in mutual TLS too
//!
//! `scripts/other-makers` prepares the token and calls this.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, wait_for};
use ironroot_lab::openssl_peer::OpenSsl;
use ironroot_lab::softhsm::SoftHsm;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "other-makers --pkcs11-module PATH [--ca-key-type KIND] [--openssl PROGRAM]";
/// Exit code for a wrong command line. Source: sysexits.h, EX_USAGE.
const EXIT_USAGE: u8 = 64;
/// A workload without privileges: a number needs no account.
const WORKLOAD: u32 = 60_001;
/// Two rotations of a CA of one minute take less.
const ROTATIONS_DEADLINE: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(asked) = Asked::read(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(EXIT_USAGE);
    };
    match life_of_a_ca(&asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("  ✗ {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
#[derive(Default)]
struct Asked {
    module: PathBuf,
    ca_key_type: Option<String>,
    openssl: Option<OpenSsl>,
}

impl Asked {
    fn read(arguments: &[String]) -> Option<Self> {
        let mut asked = Self::default();
        for pair in arguments.chunks(2) {
            let [flag, value] = pair else { return None };
            match flag.as_str() {
                "--pkcs11-module" => asked.module = value.into(),
                "--ca-key-type" => asked.ca_key_type = Some(value.clone()),
                "--openssl" => asked.openssl = Some(OpenSsl::at(Path::new(value))),
                _ => return None,
            }
        }
        (!asked.module.as_os_str().is_empty()).then_some(asked)
    }

    /// Of what kind the CAs are, as `hsm probe` calls it too.
    fn kind(&self) -> &str {
        self.ca_key_type.as_deref().unwrap_or("ec-p256")
    }

    /// Lines for the server's block.
    fn server_lines(&self) -> String {
        let kind = self.ca_key_type.as_ref();
        kind.map_or_else(String::new, |kind| format!("ca_key_type = \"{kind}\"\nroot {{ enabled = true }}"))
    }
}

/// Founded, issuing, rotated twice under a workload that never goes without, killed, found again.
fn life_of_a_ca(asked: &Asked) -> Outcome<()> {
    let began = Instant::now();
    let said = |what: &str| println!("[{:>5.1} s] ✓ {what}", began.elapsed().as_secs_f32());
    let server_lines = asked.server_lines();
    let options = ServerOptions {
        ca_ttl: "1m",
        agent_ttl: "30s",
        x509_svid_ttl: "10s",
        server_lines,
        ..ServerOptions::default()
    };
    let mut server = Server::prepare(&options);
    use_module(&server, &asked.module)?;
    said(&format!("hsm probe: {}", probed(&server, asked.kind())?));
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
    if let Some(openssl) = &asked.openssl {
        said(&verified_by(openssl, &server, &device)?);
    }
    match gaps {
        0 => Ok(()),
        gaps => Err(format!("the workload went without an answer {gaps} times").into()),
    }
}

/// What another maker's library makes of what the token has signed.
fn verified_by(openssl: &OpenSsl, server: &Server, device: &Device) -> Outcome<String> {
    let fetched = device.fetch(WORKLOAD)?;
    let leaf = &fetched.leaves[0];
    let bytes = leaf.der().len();
    openssl.verify(&fetched)?;
    let said = openssl.dial(server.port(), &fetched.directory.join("bundle.0.pem"))?;
    let facts = said.lines().filter(|line| line.contains("group") || line.starts_with("Signature type"));
    let facts = facts.collect::<Vec<_>>().join(", ");
    tokio::runtime::Runtime::new()?.block_on(openssl.meet(&fetched, &fetched))?;
    let algorithm = leaf.inner().signature_algorithm().oid;
    Ok(format!(
        "OpenSSL verifies the SVID ({bytes} bytes, signed with {algorithm}), our server's ({facts}), and a peer on rustls in mutual TLS"
    ))
}

/// What the token is good for, by a key of each kind that lived there; an error if those of `kind` did not.
fn probed(server: &Server, kind: &str) -> Outcome<String> {
    let output = server.probe();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let needs = found["needs"].as_array().ok_or("no needs")?;
    let is_of_kind = |need: &&serde_json::Value| need["what"].as_str().is_some_and(|what| what.starts_with(kind));
    if needs.iter().find(is_of_kind).is_none_or(|need| need["met"] != true) {
        return Err(format!("the token is no good for keys of {kind}: {needs:?}").into());
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
