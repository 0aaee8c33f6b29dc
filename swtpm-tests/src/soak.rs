//! Rotation under fire: a CA of a minute, SVIDs of seconds, a fleet, and a server that is killed again and again.
//!
//! What must hold at every moment: each workload holds a valid SVID, any two of them can meet in mutual TLS, and at the end the token
//! has the keys that the journal names and no others.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::workload::X509svidResponse;
use ironroot_server::ca::{Journal, KeyRecord, Place, ServerName};
use ironroot_server::store::Store;
use tokio::runtime::Runtime;

use crate::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use crate::manufacturer::Manufacturer;
use crate::mutual_tls::{anchors, handshake};
use crate::softhsm::{LABEL, PIN};
use crate::workload_client;

/// How often each workload's SVID is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Pause between two handshakes.
const HANDSHAKE_EVERY: Duration = Duration::from_millis(100);
/// Failures that are told; the rest is counted.
const TOLD: usize = 20;

/// How long, with how many, how often.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// Agents, each with a chip and a workload.
    pub agents: usize,
    /// From when all are served.
    pub duration: Duration,
    /// `kill -9` of the server, and its start, this often.
    pub kill_every: Duration,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    messages: usize,
    handshakes: usize,
    kills: usize,
    issuers: HashSet<Vec<u8>>,
    /// The least that was left of a held SVID when it was looked at, seconds.
    least_left: Option<i64>,
    longest_outage: Duration,
    keys: usize,
    /// What must not be.
    pub failures: Vec<String>,
}

/// What a workload holds.
type Held = Arc<Mutex<Option<X509svidResponse>>>;

impl Seen {
    fn fail(&mut self, what: String) {
        self.failures.push(what);
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "messages with SVIDs           {}", self.messages)?;
        writeln!(f, "mutual TLS handshakes         {}", self.handshakes)?;
        writeln!(f, "CAs that signed               {}", self.issuers.len())?;
        writeln!(f, "kill -9 of the server         {}", self.kills)?;
        writeln!(f, "longest until it answered     {:.1} s", self.longest_outage.as_secs_f64())?;
        writeln!(f, "least life left of an SVID    {} s", self.least_left.unwrap_or_default())?;
        writeln!(f, "keys on the token at the end  {}", self.keys)?;
        writeln!(f, "failures                      {}", self.failures.len())?;
        self.failures.iter().take(TOLD).try_for_each(|failure| writeln!(f, "  {failure}"))
    }
}

impl Soak {
    /// Lives through it.
    pub fn run(self) -> Seen {
        let (mut server, devices) = self.fleet();
        let runtime = Runtime::new().expect("runtime");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let held: Vec<Held> = devices.iter().map(|_| Held::default()).collect();
        for (device, held) in devices.iter().zip(&held) {
            runtime.spawn(follow(device.socket(), Arc::clone(held), Arc::clone(&seen)));
        }
        let all = || held.iter().all(|held| lock(held).is_some());
        expect_within(DEADLINE * 3, "every workload is served", || server.log(), all);
        runtime.spawn(look(held.clone(), Arc::clone(&seen)));
        runtime.spawn(meet(held.clone(), Arc::clone(&seen)));
        self.kill_again_and_again(&mut server, &seen);
        runtime.shutdown_background();
        drop(devices);
        server.kill();
        let mut seen = std::mem::take(&mut *lock(&seen));
        compare_keys(&server, &mut seen);
        seen
    }

    fn fleet(self) -> (Server, Vec<Device>) {
        let maker = Manufacturer::new("Toy TPM Works").expect("maker");
        let mut devices: Vec<Device> = (0..self.agents).map(|_| Device::manufacture(&maker)).collect();
        let options = ServerOptions { ca_ttl: "1m", agent_ttl: "30s", x509_svid_ttl: "10s", ..Default::default() };
        let server = Server::start(&options);
        let enrolled: String = devices.iter().map(|device| format!("{}\n", device.ek_sha256())).collect();
        server.import_devices(&format!("ek_sha256\n{enrolled}"));
        let own = format!("unix:uid:{}", nix::unistd::geteuid());
        for (number, device) in devices.iter().enumerate() {
            server.create_entry(&device.agent_id(), &format!("/soak-{number}"), &[&own], &[]);
        }
        for device in &mut devices {
            device.provision(&server, &AgentOptions::default());
            device.start();
        }
        (server, devices)
    }

    /// Each kill is at another moment of the CA's minute.
    fn kill_again_and_again(self, server: &mut Server, seen: &Mutex<Seen>) {
        let end = Instant::now() + self.duration;
        let mut next = Instant::now() + self.kill_every / 2;
        let shift = self.kill_every / 7;
        while Instant::now() < end {
            std::thread::sleep(next.min(end).saturating_duration_since(Instant::now()));
            if Instant::now() >= end {
                return;
            }
            let killed = Instant::now();
            server.kill();
            server.restart();
            let mut seen = lock(seen);
            seen.kills += 1;
            seen.longest_outage = seen.longest_outage.max(killed.elapsed());
            next += self.kill_every + shift;
        }
    }
}

/// Takes in what the agent sends; a stream that breaks is opened anew.
async fn follow(socket: std::path::PathBuf, held: Held, seen: Arc<Mutex<Seen>>) {
    loop {
        if let Ok(mut client) = workload_client::client(&socket).await
            && let Ok(mut stream) = workload_client::watch(&mut client).await
        {
            while let Ok(Some(message)) = stream.message().await {
                let judged = judge(&message);
                let mut seen = lock(&seen);
                seen.messages += 1;
                match judged {
                    Ok(issuer) => drop(seen.issuers.insert(issuer)),
                    Err(why) => seen.fail(format!("{}: served {why}", socket.display())),
                }
                *lock(&held) = Some(message);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Who signed it; or what is wrong with it: it must verify now, by the bundle beside it.
fn judge(message: &X509svidResponse) -> Result<Vec<u8>, String> {
    let [svid] = &message.svids[..] else { return Err(format!("{} SVIDs", message.svids.len())) };
    let chain = Certificate::parse_concatenated(&svid.x509_svid).map_err(|error| error.to_string())?;
    let anchors = anchors(&svid.bundle);
    let intermediates: Vec<_> = chain[1..].iter().map(|one| one.der().clone()).collect();
    let verified = anchors.verify(chain[0].der(), &intermediates, webpki::KeyUsage::server_auth(), now_unix());
    verified.map_err(|refusal| format!("what does not verify: {refusal:?}"))?;
    chain[0].authority_key_id().ok_or_else(|| "no authority key ID".to_owned())
}

/// Looks whether each holds something that is valid.
async fn look(held: Vec<Held>, seen: Arc<Mutex<Seen>>) {
    loop {
        let now = now_unix();
        for (number, held) in held.iter().enumerate() {
            let ends = lock(held).as_ref().map_or(0, ends);
            let mut seen = lock(&seen);
            let left = ends - now;
            seen.least_left = Some(seen.least_left.map_or(left, |least| least.min(left)));
            if left <= 0 {
                seen.fail(format!("workload {number} has been without a valid SVID for {} s", -left));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn ends(message: &X509svidResponse) -> i64 {
    let leaf = message.svids.first().and_then(|svid| Certificate::parse_concatenated(&svid.x509_svid).ok());
    leaf.and_then(|chain| chain.first().map(Certificate::not_after_unix)).unwrap_or(0)
}

/// Two of them in turns, in mutual TLS.
async fn meet(held: Vec<Held>, seen: Arc<Mutex<Seen>>) {
    for number in 0usize.. {
        let [one, other] = [number, number * 7 + 1].map(|number| number % held.len());
        let listener = lock(&held[one]).clone();
        let dialer = lock(&held[other]).clone();
        if let (Some(listener), Some(dialer)) = (listener, dialer) {
            let met = tokio::time::timeout(Duration::from_secs(10), handshake(&listener, &dialer)).await;
            let mut seen = lock(&seen);
            seen.handshakes += 1;
            match met {
                Ok(Ok(())) => {}
                Ok(Err(why)) => seen.fail(format!("workloads {one} and {other}: {why}")),
                Err(_) => seen.fail(format!("workloads {one} and {other}: no handshake in ten seconds")),
            }
        }
        tokio::time::sleep(HANDSHAKE_EVERY).await;
    }
}

/// The token has what the journal names, each once in two halves, and nothing else.
fn compare_keys(server: &Server, seen: &mut Seen) {
    let listed = server.token().run(
        "pkcs11-tool",
        &[
            "--module",
            &module(),
            "--token-label",
            LABEL,
            "--login",
            "--pin",
            PIN,
            "--list-objects",
            "--type",
            "privkey",
        ],
    );
    let on_token: Vec<String> =
        listed.lines().filter_map(|line| line.trim().strip_prefix("label:")).map(name).collect();
    seen.keys = on_token.len();
    let journal = journal(server);
    let named = labels(Place::all().filter_map(|place| journal.slot(place).key()));
    // What was only written down may not be made yet.
    let authorities = Place::all().filter_map(|place| journal.slot(place).authority());
    let needed = labels(authorities.map(|authority| &authority.in_token));
    let distinct: BTreeSet<_> = on_token.iter().cloned().collect();
    for left in distinct.difference(&named) {
        seen.fail(format!("a key is left behind on the token: {left}"));
    }
    for lost in needed.difference(&distinct) {
        seen.fail(format!("a key of the journal is not on the token: {lost}"));
    }
    if distinct.len() != on_token.len() {
        seen.fail(format!("keys share a name: {on_token:?}"));
    }
}

fn name(text: &str) -> String {
    text.trim().to_owned()
}

fn module() -> String {
    crate::softhsm::SoftHsm::module_path().display().to_string()
}

fn labels<'a>(keys: impl Iterator<Item = &'a KeyRecord>) -> BTreeSet<String> {
    keys.filter_map(|key| key.name.label().map(str::to_owned)).collect()
}

fn journal(server: &Server) -> Journal {
    let trust_domain = TrustDomain::new(TRUST_DOMAIN).expect("legal");
    let store = Store::open(&server.directory().join("data/datastore.sqlite3"), &trust_domain).expect("opened");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let bytes = runtime.block_on(async {
        let bytes = store.ca_journal("").await.expect("read").expect("a CA was founded");
        store.close().await;
        bytes
    });
    Journal::from_bytes(&bytes, &trust_domain, &ServerName::default()).expect("a journal")
}

fn now_unix() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
        .try_into()
        .expect("before the year 2262")
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
