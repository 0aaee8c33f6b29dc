//! What workloads of two devices do all the time: fetch both kinds of SVIDs, meet in mutual TLS, and check one another's tokens.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::mutual_tls::handshake;
use crate::workload_client;

/// Pause between two rounds: the machine has other things to do.
const BETWEEN: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
    failed: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
}

impl Traffic {
    /// Begins, between a workload on each of these sockets.
    pub fn between(one: PathBuf, other: PathBuf) -> Self {
        let (stop, done, failed) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default(), Arc::<Mutex<Vec<_>>>::default());
        let sockets = [one, other];
        let (ends, count, failures) = (stop.clone(), done.clone(), failed.clone());
        let thread = std::thread::spawn(move || {
            let runtime = Runtime::new().expect("runtime");
            while !ends.load(Ordering::Relaxed) {
                let met = runtime.block_on(async {
                    let word = |status: tonic::Status| status.to_string();
                    let one = workload_client::fetch(&sockets[0]).await.map_err(word)?;
                    let other = workload_client::fetch(&sockets[1]).await.map_err(word)?;
                    handshake(&one, &other).await?;
                    let tokens = workload_client::fetch_jwt(&sockets[0], &["peer"], "").await.map_err(word)?;
                    let token = tokens.first().ok_or("no token")?;
                    workload_client::validate_jwt(&sockets[1], "peer", &token.svid).await.map_err(word)?;
                    tokio::time::sleep(BETWEEN).await;
                    Ok::<_, String>(())
                });
                count.fetch_add(1, Ordering::Relaxed);
                if let Err(why) = met {
                    failures.lock().expect("no panic").push(why);
                }
            }
        });
        Self { stop, done, failed, thread }
    }

    /// How often they did; and what went wrong.
    ///
    /// # Panics
    /// If it could not go on.
    pub fn end(self) -> (u32, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic");
        let failed = self.failed.lock().expect("no panic").clone();
        (self.done.load(Ordering::Relaxed), failed)
    }
}
