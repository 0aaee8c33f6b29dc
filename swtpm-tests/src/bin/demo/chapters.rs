//! What happens, chapter by chapter: each shows what is typed, does it, and shows what became of it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use ironroot_lab::deployment::{DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, wait_for};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::workload_client;
use ironroot_software_tpm::BootLog;
use ironroot_text::hex::hex;
use serde_json::Value;

use super::story::Story;
use super::{Outcome, runtime};

/// Two workloads and a stranger: numbers need no accounts.
pub(super) const ALICE: u32 = 60_001;
const BOB: u32 = 60_002;
const STRANGER: u32 = 60_003;
/// For whom Alice's token is.
const SERVICE: &str = "https://vault.example.org";
/// The group of devices that the workloads' entries are for.
const GROUP: &str = "/gateway";
/// What that group's devices have: the operator's word, and a boot that is as it was learnt.
const GROUP_SELECTORS: [&str; 2] = ["tpm2:label:site:berlin", "tpm2:policy:golden"];
/// What the kernel calls boots.
const INSECURE_BOOT: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const LAST_BOOT: &str = "aaaaaaaa-0000-0000-0000-000000000002";
/// Selectors that are shown of those that an attestation gives.
const SHOWN: [&str; 5] = ["tpm2:serial", "tpm2:label", "tpm2:key", "tpm2:secureboot:on", "tpm2:pcr:sha256:7"];

/// A maker, a server, a device, and the story that is told of them.
pub(super) struct Lab {
    pub story: Story,
    maker: Manufacturer,
    pub server: Server,
    pub device: Device,
}

impl Lab {
    /// Two chapters: a chip is made, a server starts.
    pub fn begin(mut story: Story) -> Outcome<Self> {
        story.chapter("A TPM maker certifies a device's endorsement key")?;
        let maker = Manufacturer::new("Toy TPM Works")?;
        let device = Device::manufacture(&maker);
        story.fact(&format!("endorsement key {}", short(device.ek_sha256())))?;

        story.chapter("A server starts; its CA key is made in a PKCS#11 token and cannot leave it")?;
        story.command("ironroot-server run -config server.conf")?;
        let server = Server::start(&ServerOptions::default());
        story.fact(&format!("token {:?} (SoftHSM), trust domain {TRUST_DOMAIN}", ironroot_lab::softhsm::LABEL))?;
        Ok(Self { story, maker, server, device })
    }

    pub fn enrol(&mut self) -> Outcome<()> {
        self.story.chapter("The device is enrolled from a manifest; entries say who its workloads are")?;
        self.story.command("ironroot-server device import fleet.csv")?;
        self.server
            .import_devices(&format!("ek_sha256,serial,label:site\n{},SN-0001,berlin\n", self.device.ek_sha256()));
        self.story.fact("SN-0001, label site=berlin")?;
        let group = format!("spiffe://{TRUST_DOMAIN}{GROUP}");
        let [label, policy] = GROUP_SELECTORS;
        self.run(&["entry", "create", "-node", "-spiffeID", &group, "-selector", label, "-selector", policy])?;
        self.entry("/alice", ALICE)?;
        self.entry("/bob", BOB)?;
        let own = nix::unistd::geteuid().as_raw();
        self.server.create_entry(&group, "/probe", &[&format!("unix:uid:{own}")], &[]);
        self.story.fact("on a device of Berlin that boots as it should, uid 60001 is /alice, uid 60002 is /bob")
    }

    pub fn attest(&mut self) -> Outcome<()> {
        self.story
            .chapter("The agent attests: EK, AK, credential activation, quote, boot log, a TLS key in the TPM")?;
        self.story.command("ironroot-agent run -config agent.conf")?;
        self.device.provision(&self.server, &self.device.measured());
        boot(&mut self.device, &BootLog::booted(true, b"loader"));
        self.device.start();
        let id = self.device.agent_id();
        let attested = || self.server.cli_output(&["agent", "show", "-spiffeID", &id]).status.success();
        wait_for(DEADLINE, || attested().then_some(()))
            .ok_or_else(|| format!("not attested: {}", self.device.log()))?;
        let agent = self.server.cli(&["agent", "show", "-spiffeID", &id]);
        for selector in agent.split_whitespace().filter(|word| SHOWN.iter().any(|shown| word.starts_with(shown))) {
            self.story.fact(&cut(selector))?;
        }
        self.run(&["policy", "learn", "-device", "SN-0001", "-name", "golden"])?;
        self.device.expect_identity(ALICE);
        self.story.fact("what it booted is the policy golden; whoever boots something else does not meet it")
    }

    pub fn turn_an_intruder_away(&mut self) -> Outcome<()> {
        self.story.chapter("An intruder with a TPM of the same maker, and nobody's word for it")?;
        self.story.command("ironroot-agent run -config agent.conf")?;
        let mut intruder = Device::manufacture(&self.maker);
        intruder.provision(&self.server, &intruder.measured());
        intruder.start();
        let refused = || intruder.log().lines().find(|line| line.contains("failed to attest")).map(str::to_owned);
        let line = wait_for(DEADLINE, refused).ok_or_else(|| format!("not refused: {}", intruder.log()))?;
        let why = line.split_once("failed to attest: ").map_or(&*line, |(_, why)| why);
        self.story.fact(&format!("refused: {}", cut(why.split('"').next().unwrap_or(why))))?;
        require(intruder.fetch(ALICE).is_err(), "an intruder's workload got an identity")?;
        self.story.fact("its workloads get nothing")
    }

    pub fn serve(&mut self) -> Outcome<()> {
        self.story.chapter("Two workloads of different unix users get different X.509-SVIDs; a third is refused")?;
        self.story.command("ironroot-agent api fetch x509          # as uid 60001, 60002, 60003")?;
        let (alice, bob) = (self.device.expect_identity(ALICE), self.device.expect_identity(BOB));
        self.story.fact(&format!("uid {ALICE}: {}", alice.ids.join(", ")))?;
        self.story.fact(&format!("uid {BOB}: {}", bob.ids.join(", ")))?;
        require(alice.ids != bob.ids, "two workloads have the same identity")?;
        let refused = self.device.fetch(STRANGER).err().ok_or("a process without an entry got an identity")?;
        self.story.fact(&format!("uid {STRANGER}: {}", refused.lines().next().unwrap_or_default()))
    }

    pub fn talk(&mut self) -> Outcome<()> {
        self.story.chapter("They talk mutual TLS, each requiring the other's SPIFFE ID")?;
        self.story.fact(&mutual_tls(&self.device)?)
    }

    /// Alice's token.
    pub fn sign_a_token(&mut self) -> Outcome<String> {
        self.story.chapter("Alice gets a JWT-SVID for one service, signed in the token; Bob has it validated")?;
        self.story.command(&format!("ironroot-agent api fetch jwt -audience {SERVICE}"))?;
        let token = token_of_alice(&self.device)?;
        self.story.fact(&format!("{}... ({} characters)", &token[..token.len().min(24)], token.len()))?;
        self.story.command(&format!("ironroot-agent api validate jwt -audience {SERVICE} -svid ..."))?;
        self.story.fact(&validated(&self.device, SERVICE, &token)?)?;
        let elsewhere = validated(&self.device, "https://elsewhere.example", &token);
        self.story.fact(&format!("for another audience: {}", elsewhere.err().ok_or("another audience took it")?))?;
        Ok(token)
    }

    pub fn lose_power(&mut self, token: &str) -> Outcome<()> {
        self.story.chapter("The server is killed and the device loses power: agent killed, TPM reset, memory gone")?;
        let sealed = sealed_svids(&self.device)?;
        self.server.kill();
        boot(&mut self.device, &BootLog::booted(true, b"loader"));
        self.story.fact("no server, no agent, only the flash and the chip, and the same boot")?;
        self.story.command("ironroot-agent run -config agent.conf")?;
        self.device.start();
        let since = Instant::now();
        let socket = self.device.socket();
        let first = workload_client::first_svid(&socket, since, DEADLINE);
        let (_, elapsed) = runtime()?.block_on(first)?;
        let told =
            format!("first SVID on the socket {} ms after exec, from the cache sealed to the TPM", elapsed.as_millis());
        self.story.fact(&told)?;
        for (uid, before) in [(ALICE, sealed.0), (BOB, sealed.1)] {
            let again = self.device.expect_identity(uid);
            require(again.leaves[0].serial_decimal() == before, "the workload got another SVID than the one it had")?;
            self.story.fact(&format!("uid {uid}: {} again, the same SVID", again.ids.join(", ")))?;
        }
        require(self.device.fetch(STRANGER).is_err(), "a process without an entry got an identity offline")?;
        self.story.fact(&format!("Alice's JWT-SVID, without a server: {}", validated(&self.device, SERVICE, token)?))
    }

    pub fn rob(&mut self) -> Outcome<()> {
        self.story.chapter("A thief copies the cache to another device")?;
        self.story.fact(&thief(&self.maker, &self.server, &self.device)?)
    }

    pub fn catch_up(&mut self) -> Outcome<()> {
        self.story.chapter("The server returns and the agent catches up")?;
        self.server.restart();
        self.entry("/carol", STRANGER)?;
        let carol = self.device.expect_identity(STRANGER);
        self.story.fact(&format!("registered just now, uid {STRANGER}: {}", carol.ids.join(", ")))
    }

    pub fn boot_something_else(&mut self) -> Outcome<()> {
        self.story.chapter("Somebody switches Secure Boot off: the cache stays shut, the identities are gone")?;
        self.start_after(&BootLog::booted(false, b"loader"), INSECURE_BOOT)?;
        let shut = || {
            self.device.log().lines().rev().find(|line| line.contains("the sealed cache is refused")).map(str::to_owned)
        };
        wait_for(DEADLINE, shut).ok_or_else(|| format!("the cache was opened: {}", self.device.log()))?;
        self.story.fact("the chip does not unseal what another boot has sealed")?;
        self.story.command("ironroot-server device show SN-0001")?;
        let changed = || {
            let shown = self.server.cli(&["device", "show", "SN-0001"]);
            shown.lines().find(|line| line.contains("Secure Boot was on")).map(|line| line.trim().to_owned())
        };
        let changed = wait_for(DEADLINE, changed).ok_or_else(|| format!("nothing changed: {}", self.device.log()))?;
        self.story.fact(&changed.split_whitespace().collect::<Vec<_>>().join(" "))?;
        require(
            self.device.fetch(ALICE).is_err(),
            "a workload has an identity on a device that booted something else",
        )?;
        self.story.fact("it attests, and meets the policy golden no more: no entry is for it")?;
        self.start_after(&BootLog::booted(true, b"loader"), LAST_BOOT)?;
        let alice = self.device.expect_identity(ALICE);
        self.story.fact(&format!("booted as before: {} again", alice.ids.join(", ")))
    }

    pub fn rotate(&mut self) -> Outcome<()> {
        self.story.chapter("Root and CA are replaced: made in the token, published, used; nothing is restarted")?;
        let before = self.signer()?;
        self.story.fact(&format!("Alice's SVID is signed by {}", short(&before)))?;
        let old_root = self.ask(&["upstreamauthority", "show"])?["active"]["authority_id"].clone();
        let root = self.run_for_id(&["upstreamauthority", "prepare"])?;
        self.run(&["upstreamauthority", "activate", "-subjectKeyID", &root])?;
        let next = self.run_for_id(&["localauthority", "x509", "prepare"])?;
        self.run(&["localauthority", "x509", "activate", "-authorityID", &next])?;
        self.run(&["upstreamauthority", "taint", "-subjectKeyID", old_root.as_str().ok_or("no root")?])?;
        let replaced = || self.signer().ok().filter(|signer| *signer == next);
        let signer = wait_for(DEADLINE, replaced).ok_or_else(|| format!("not replaced: {}", self.device.log()))?;
        self.story.fact(&format!("Alice's SVID is signed by {}", short(&signer)))?;
        self.story.fact(&mutual_tls(&self.device)?)
    }

    pub fn ban(&mut self) -> Outcome<()> {
        self.story.chapter("The device is stolen: banned, it serves nothing and wipes its cache")?;
        self.run(&["device", "ban", "SN-0001"])?;
        let since = Instant::now();
        let gone = || self.device.fetch(ALICE).is_err().then_some(());
        wait_for(DEADLINE, gone).ok_or_else(|| format!("it goes on serving: {}", self.device.log()))?;
        self.story.fact(&format!("{:.1} s later its workloads get nothing any more", since.elapsed().as_secs_f32()))
    }

    /// The machine boots that, and its agent proves it. That it is another boot the kernel tells; only root can have it tell so
    /// here, so that without root the agent is told by the server to attest anew.
    fn start_after(&mut self, log: &BootLog, boot_id: &str) -> Outcome<()> {
        boot(&mut self.device, log);
        if nix::unistd::geteuid().is_root() {
            self.device.start_in_boot(boot_id);
            return Ok(());
        }
        self.device.start();
        self.run(&["agent", "evict", "-spiffeID", &self.device.agent_id()])
    }

    /// An entry of the group for a user.
    fn entry(&self, path: &str, uid: u32) -> Outcome<()> {
        let (group, id) = (format!("spiffe://{TRUST_DOMAIN}{GROUP}"), format!("spiffe://{TRUST_DOMAIN}{path}"));
        let selector = format!("unix:uid:{uid}");
        self.run(&["entry", "create", "-parentID", &group, "-spiffeID", &id, "-selector", &selector])
    }

    /// The CA that signed what Alice has, by its subject key ID.
    fn signer(&self) -> Outcome<String> {
        let fetched = self.device.fetch(ALICE)?;
        let id = fetched.leaves.first().and_then(|leaf| leaf.authority_key_id()).ok_or("an SVID without an issuer")?;
        Ok(hex(&id))
    }

    /// Shows a command of the server's, and runs it.
    fn run(&self, arguments: &[&str]) -> Outcome<()> {
        self.story.command(&format!("ironroot-server {}", arguments.join(" ")))?;
        let output = self.server.cli_output(arguments);
        require(output.status.success(), String::from_utf8_lossy(&output.stderr).trim())
    }

    /// The same for a command that prepares an authority: the ID of what it made.
    fn run_for_id(&self, arguments: &[&str]) -> Outcome<String> {
        self.story.command(&format!("ironroot-server {}", arguments.join(" ")))?;
        let answer = self.ask(arguments)?;
        Ok(answer["prepared_authority"]["authority_id"].as_str().ok_or("no authority")?.to_owned())
    }

    fn ask(&self, arguments: &[&str]) -> Outcome<Value> {
        Ok(serde_json::from_str(&self.server.cli(&[arguments, &["-output", "json"]].concat()))?)
    }
}

/// The machine starts, and its firmware measures that into the chip.
fn boot(device: &mut Device, log: &BootLog) {
    device.boot(log.extended(), log.bytes());
}

/// Digits that tell enough for people.
fn short(digits: &str) -> String {
    format!("{}…", digits.get(..16).unwrap_or(digits))
}

/// A line with its long rows of digits cut short.
fn cut(text: &str) -> String {
    let word = |word: &str| match word.rsplit_once(':') {
        Some((name, digits)) if digits.len() > 32 => format!("{name}:{}", short(digits)),
        _ if word.len() > 48 && !word.contains('/') => short(word),
        _ => word.to_owned(),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
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
    let answer: Value = serde_json::from_slice(&answer.stdout)?;
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
    thief.provision_with_bundle(&std::fs::read_to_string(victim.bundle_path())?, server.port(), &thief.measured());
    copy_directory(&victim.data_directory(), &thief.data_directory())?;
    boot(&mut thief, &BootLog::booted(true, b"loader"));
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

fn require(holds: bool, claim: &str) -> Outcome<()> {
    if holds { Ok(()) } else { Err(claim.into()) }
}
