//! The fleet page: what `device`, `agent`, `entry` and `status` tell, for people who would rather look.
//!
//! ```text
//!  browser ── 127.0.0.1 ─► door ─► Visitor ─► pages ─► asked ── admin socket ─► the server
//!                           │        └─► Writer ─► changes ──┘
//!                           └ a link that opens once, a cookie, the page's own origin
//! ```
//! A process of its own: the server gets no new door, and the console has the rights of whoever started it, no more. It keeps
//! nothing but who may look, and asks the server anew for each page.

mod asked;
mod audit_file;
mod changes;
mod door;
mod fleet;
mod identities;
mod live;
mod pages;
mod validity;
mod web;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ironroot_shell::listen;
use tokio::net::TcpListener;
use tonic::transport::Channel;

pub use door::{Door, LINK_MINUTES};

use asked::Server;
use live::Watcher;

/// What a console is started with.
#[derive(Clone, Debug)]
pub struct ConsoleOptions {
    /// The server's admin socket.
    pub channel: Channel,
    /// Port of 127.0.0.1; 0: one that is free.
    pub port: u16,
    /// Whether devices can be approved and banned in it.
    pub may_write: bool,
    /// Where the server writes its audit lines, if device pages are to show them.
    pub audit_file: Option<PathBuf>,
}

/// A console that listens, and is not open to anybody until its link is given away.
#[derive(Debug)]
pub struct Console {
    listener: TcpListener,
    address: SocketAddr,
    house: Arc<House>,
}

/// What every request is answered from.
#[derive(Debug)]
struct House {
    door: Door,
    server: Server,
    audit_file: Option<PathBuf>,
    watcher: Watcher,
}

impl Console {
    /// Listens on this machine alone.
    pub async fn bind(options: ConsoleOptions) -> std::io::Result<Self> {
        let listener = listen::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, options.port))).await?;
        let address = listener.local_addr()?;
        let server = Server::new(options.channel);
        let watcher = Watcher::new(server.clone());
        let door = Door::new(options.may_write);
        Ok(Self { listener, address, house: Arc::new(House { door, server, audit_file: options.audit_file, watcher }) })
    }

    /// A link that opens the console once, for [`LINK_MINUTES`]; one given before opens nothing any more.
    pub fn link(&self) -> String {
        format!("http://{}/open/{}", self.address, self.house.door.new_link(Instant::now()))
    }

    /// Answers until dropped.
    pub async fn serve(&self) -> std::io::Result<()> {
        web::serve(&self.listener, &self.house).await
    }
}
