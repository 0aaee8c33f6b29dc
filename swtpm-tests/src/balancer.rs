//! A balancer of TCP connections.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How long a server has to take a connection.
const PATIENCE: Duration = Duration::from_millis(200);

/// Carries each connection to the first of the servers that takes it.
#[derive(Debug)]
pub struct Balancer {
    port: u16,
    over: Arc<AtomicBool>,
    carried: Arc<Vec<AtomicUsize>>,
}

impl Balancer {
    /// Before servers on these ports of loopback.
    ///
    /// # Panics
    /// No port is free.
    pub fn start(servers: Vec<u16>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listens");
        let port = listener.local_addr().expect("bound").port();
        let over = Arc::new(AtomicBool::new(false));
        let carried: Arc<Vec<_>> = Arc::new(servers.iter().map(|_| AtomicUsize::new(0)).collect());
        let (until, counts) = (over.clone(), carried.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if until.load(Ordering::Relaxed) {
                    break;
                }
                if let Some((at, server)) = first(&servers) {
                    counts[at].fetch_add(1, Ordering::Relaxed);
                    join(client, server);
                }
            }
        });
        Self { port, over, carried }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections each server has had.
    pub fn carried(&self) -> Vec<usize> {
        self.carried.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn first(servers: &[u16]) -> Option<(usize, TcpStream)> {
    servers.iter().enumerate().find_map(|(at, port)| {
        let server = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, *port)), PATIENCE);
        Some((at, server.ok()?))
    })
}

fn join(client: TcpStream, server: TcpStream) {
    let ends = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
    for (from, to) in ends {
        let (mut from, mut to) = (from.expect("a handle"), to.expect("a handle"));
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}
