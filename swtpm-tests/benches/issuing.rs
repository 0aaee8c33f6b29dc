//! X509-SVIDs and JWT-SVIDs per second as shares of raw C_SignInit + C_Sign on the same token with as many sessions.
//!
//! Prints wall-clock rates and CPU time per signature: with SoftHSM both compete for the same cores, and neighbours on the
//! machine disturb the former only. Beside each share the one that the cores allow: what they can do in a second if each signature
//! takes the CPU time that it took. A share that comes near it is limited by the cores, not by waiting. `cargo bench --bench issuing`.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use ironroot_hsm::TokenConfig;
use ironroot_lab::authority::{AuthorityLab, NOW, asking, authorized_entry, sign_jwt, spki};
use ironroot_lab::softhsm::{CONFIGURATION_VARIABLE, LABEL, SoftHsm};
use ironroot_lab::tpm2_pkcs11::{STORE_VARIABLE, Tpm2Token};
use ironroot_server::ca::SlotName;
use nix::sys::resource::{UsageWho, getrusage};

/// Each measurement runs this long, and so often.
const PERIOD: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;
/// Requests in a batch; SPIRE's agents send up to 500, and a slow token needs seconds for so many.
const BATCH: usize = 100;
/// Callers that ask for one JWT-SVID after the other; and the share of raw signatures that is the goal.
const JWT_CALLERS: usize = 64;
const JWT_GOAL: f64 = 0.95;

fn main() {
    if std::env::var_os(CONFIGURATION_VARIABLE).is_some() {
        measure("SoftHSM", &SoftHsm::module_path(), &[1, 2, 4, 8], |n| SoftHsm::of_environment().token_config(n));
    } else if std::env::var_os(STORE_VARIABLE).is_some() {
        measure("tpm2-pkcs11", &Tpm2Token::module_path(), &[1], |n| Tpm2Token::of_environment().token_config(n));
    } else {
        let (soft, tpm) = (SoftHsm::new(), Tpm2Token::new());
        let (variable, path) = soft.environment();
        run_again(vec![(variable, path.into())]);
        run_again(tpm.environment());
    }
}

/// PKCS#11 modules read the environment; only a new process can have another one.
fn run_again(environment: Vec<(&str, OsString)>) {
    let program = std::env::current_exe().expect("this program");
    let status = Command::new(program).envs(environment).status().expect("this program runs again");
    assert!(status.success());
}

fn measure(name: &str, module: &Path, sessions: &[usize], config: impl Fn(usize) -> TokenConfig) {
    println!("{name}");
    println!(
        "sessions        raw/s       SVID/s   share  cores allow        JWT/s   share  cores allow     raw CPU us    SVID CPU us     JWT CPU us"
    );
    for &sessions in sessions {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let lab = AuthorityLab::with_token(config(sessions), 24 * 3600).with_jwt();
        // In turns, and the medians: neighbours come and go.
        let rounds: Vec<_> = (0..ROUNDS)
            .map(|_| {
                let (svid, jwt) = (runtime.block_on(issue(&lab)), runtime.block_on(issue_jwts(&lab)));
                (sign_raw(&lab, module, sessions), svid, jwt)
            })
            .collect();
        let share = |of: fn(&(Measured, Measured, Measured)) -> &Measured| {
            let mut shares: Vec<f64> = rounds.iter().map(|round| of(round).rate / round.0.rate).collect();
            shares.sort_by(f64::total_cmp);
            shares[ROUNDS / 2]
        };
        let (svid_share, jwt_share) = (share(|round| &round.1), share(|round| &round.2));
        let (raw, svid, jwt) = &rounds[ROUNDS / 2];
        println!(
            "{sessions:>8} {:>12.0} {:>12.0} {svid_share:>7.2} {:>12.2} {:>12.0} {jwt_share:>7.2} {:>12.2} {:>14.0} {:>14.0} {:>14.0}{}",
            raw.rate,
            svid.rate,
            svid.cores_allow() / raw.rate,
            jwt.rate,
            jwt.cores_allow() / raw.rate,
            raw.cpu_us,
            svid.cpu_us,
            jwt.cpu_us,
            if jwt_share < JWT_GOAL { "  JWT: below the goal" } else { "" }
        );
        runtime.block_on(lab.forget_keys());
    }
}

struct Measured {
    rate: f64,
    cpu_us: f64,
}

impl Measured {
    /// So many a second, if the cores did nothing else.
    fn cores_allow(&self) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        cores as f64 * 1e6 / self.cpu_us
    }
}

async fn issue(lab: &AuthorityLab) -> Measured {
    let ca = lab.start(NOW).await.expect("a CA");
    let (agent, entry) = (asking(), authorized_entry(lab, "/web", 3600, &[]).await);
    let requests: Vec<_> = (0..BATCH).map(|_| (entry.clone(), spki())).collect();
    let (start, cpu) = (Instant::now(), cpu_time());
    let mut count = 0u32;
    while start.elapsed() < PERIOD {
        // Two agents at once, so that the queue does not run empty between batches.
        let (one, two) = tokio::join!(
            ca.sign_workload_svids(&agent, requests.clone(), NOW),
            ca.sign_workload_svids(&agent, requests.clone(), NOW)
        );
        count += u32::try_from(one.iter().chain(&two).filter(|svid| svid.is_ok()).count()).expect("a thousand");
    }
    measured(f64::from(count), start, cpu)
}

async fn issue_jwts(lab: &AuthorityLab) -> Measured {
    let ca = Arc::new(lab.start(NOW).await.expect("a CA"));
    let (start, cpu) = (Instant::now(), cpu_time());
    let callers: Vec<_> = (0..JWT_CALLERS)
        .map(|_| {
            let ca = Arc::clone(&ca);
            tokio::spawn(async move {
                let mut count = 0u32;
                while start.elapsed() < PERIOD {
                    sign_jwt(&ca, NOW).await.expect("a token");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for caller in callers {
        count += caller.await.expect("a task of our own");
    }
    measured(f64::from(count), start, cpu)
}

fn sign_raw(lab: &AuthorityLab, module: &Path, sessions: usize) -> Measured {
    let pkcs11 = Pkcs11::new(module).expect("the module");
    let slots = pkcs11.get_slots_with_initialized_token().expect("slots");
    let slot =
        slots.into_iter().find(|s| pkcs11.get_token_info(*s).is_ok_and(|t| t.label() == LABEL)).expect("our token");
    let id = lab.key_name(SlotName::A).id().expect("it has one").as_bytes().to_vec();
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (start, cpu) = (Instant::now(), cpu_time());
    let threads: Vec<_> = (0..sessions)
        .map(|_| {
            let session = pkcs11.open_ro_session(slot).expect("a session");
            let (id, stop, count) = (id.clone(), stop.clone(), count.clone());
            std::thread::spawn(move || {
                let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(id)];
                let key = session.find_objects(&template).expect("keys")[0];
                while !stop.load(Ordering::Relaxed) {
                    session.sign(&Mechanism::Ecdsa, key, &[7; 32]).expect("a signature");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    std::thread::sleep(PERIOD);
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a thread of our own");
    }
    measured(count.load(Ordering::Relaxed) as f64, start, cpu)
}

fn measured(count: f64, start: Instant, cpu: Duration) -> Measured {
    Measured { rate: count / start.elapsed().as_secs_f64(), cpu_us: (cpu_time() - cpu).as_secs_f64() * 1e6 / count }
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("our own usage");
    [usage.user_time(), usage.system_time()]
        .into_iter()
        .map(|t| Duration::new(t.tv_sec().unsigned_abs(), u32::try_from(t.tv_usec()).unwrap_or(0) * 1000))
        .sum()
}
