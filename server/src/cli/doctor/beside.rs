//! What the server needs beside this machine's own: the data store, and the authority above.

use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ironroot_shell::command_line::describe;
use ironroot_shell::command_line::doctor::Findings;

use crate::ca::SpireServer;
use crate::config::{ServerConfig, UpstreamConfig};
use crate::store::StoreError;

/// How long the server above may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the data store can be read, and who else can. Nothing is changed, and nothing made.
pub(super) fn look_at_store(findings: &mut Findings, config: &ServerConfig) {
    let (about, store) = ("data store", &config.data_store);
    match store.summary(&config.trust_domain) {
        Ok(Some(summary)) => findings.good(about, format!("{store} opens: {summary}")),
        Ok(None) | Err(StoreError::None(_)) => {
            findings.good(about, format!("{store} is made at the server's first start"))
        }
        Err(why @ StoreError::Unreachable(_)) => findings.fault(
            about,
            format!("{store}: {}", describe(&why)),
            "psql with the same connection_string, as the daemon's user",
        ),
        Err(why) => findings.fault(about, format!("{store}: {}", describe(&why)), "what this line says"),
    }
    for file in store.open_to_others() {
        let path = file.display();
        let says = format!("others have rights to {path}, which holds join tokens");
        findings.doubtful("rights of the data store", says, format!("chmod 600 {path}; the next start does it too"));
    }
}

/// Whether the server above, and the agent that gives this server its SVID there, accept connections.
pub(super) fn look_at_above(findings: &mut Findings, config: &ServerConfig) {
    let Some(UpstreamConfig::Spire(SpireServer { host, port, workload_api_socket: socket, .. })) = &config.upstream
    else {
        return;
    };
    let path = socket.display();
    match UnixStream::connect(socket) {
        Ok(_) => findings.good("agent of the server above", format!("it listens at {path}")),
        Err(error) => findings.fault(
            "agent of the server above",
            format!("{path}: {error}"),
            "start the agent there that serves this server (workload_api_socket), and let this user reach its socket",
        ),
    }
    // A name that does not resolve is told already.
    let Some(address) = (host.as_str(), *port).to_socket_addrs().ok().and_then(|mut all| all.next()) else { return };
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(_) => findings.good("server above", format!("it accepts connections at {address}")),
        Err(error) => findings.fault(
            "server above",
            format!("{address}: {error}"),
            "its log, and the firewall between; the CA that is there signs on to its end meanwhile",
        ),
    }
}
