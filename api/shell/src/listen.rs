//! TCP listeners of both daemons: one door, whose refusals say what a daemon without rights can do.

use std::io;

use tokio::net::{TcpListener, ToSocketAddrs};

/// Binds a listener; an error says what to do where its words alone would not.
pub async fn tcp(address: impl ToSocketAddrs) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(explained)
}

/// The kernel refuses a right at bind(2) for ports below `net.ipv4.ip_unprivileged_port_start` alone. Source: ip(7).
fn explained(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let words = format!(
        "{error}: ports below 1024 are root's; take a higher one behind a proxy, or give the right to them in a drop-in of the unit, \
         as the handbook says (\"Packages\": AmbientCapabilities=CAP_NET_BIND_SERVICE)"
    );
    io::Error::new(error.kind(), words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_roots_says_how_a_daemon_gets_it() {
        let said = explained(io::Error::from_raw_os_error(13)).to_string();
        assert!(said.contains("Permission denied") && said.contains("CAP_NET_BIND_SERVICE"), "{said}");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_told_in_the_kernels_words_alone() {
        let first = tcp(("127.0.0.1", 0)).await.expect("a port");
        let error = tcp(first.local_addr().expect("its address")).await.expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(!error.to_string().contains("root"), "{error}");
    }
}
