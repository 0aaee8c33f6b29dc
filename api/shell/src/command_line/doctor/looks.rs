//! What both daemons' doctors look at.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use super::Findings;

/// With less than this free nothing is written any more, bytes: a journal and its copy, a cache and its copy.
const NEEDED_BYTES: u64 = 16 * 1024 * 1024;
/// With fewer free nothing is written any more, files: each is written beside the one that it replaces.
const NEEDED_FILES: u64 = 8;
/// With less than one in so many bytes free somebody should look.
const LOW_PART: u64 = 10;
/// A name service that takes longer is a fault for whoever starts at the same moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much room is left where `directory` is, or is to be made.
pub fn disk_space(findings: &mut Findings, about: &str, directory: &Path) {
    let there = directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let facts = match statvfs(there) {
        Ok(facts) => facts,
        Err(errno) => {
            let says = format!("cannot ask how much room is left in {}: {}", there.display(), errno.desc());
            return findings.fault(about, says, format!("df {}", there.display()));
        }
    };
    let bytes = |blocks| product(blocks, facts.fragment_size());
    let files = (product(facts.files_available(), 1_u32), product(facts.files(), 1_u32));
    judge_files(findings, about, there, files);
    judge_space(findings, about, there, (bytes(facts.blocks_available()), bytes(facts.blocks())));
}

/// Some file systems have a fixed number of files, others say that they have none at all.
fn judge_files(findings: &mut Findings, about: &str, there: &Path, (free, all): (u64, u64)) {
    if all > 0 && free < NEEDED_FILES {
        let says = format!("{free} of {all} inodes free in {}: no file can be made", there.display());
        findings.fault(about, says, format!("df -i {}", there.display()));
    }
}

/// Of numbers that have 32 bits on some machines.
fn product(blocks: impl Into<u64>, size: impl Into<u64>) -> u64 {
    blocks.into().saturating_mul(size.into())
}

fn judge_space(findings: &mut Findings, about: &str, there: &Path, (free, all): (u64, u64)) {
    let says = format!("{} of {} free in {}", readable(free), readable(all), there.display());
    let next = format!("df -h {}; journalctl --vacuum-size=200M", there.display());
    match free {
        _ if free < NEEDED_BYTES => findings.fault(about, says, next),
        _ if free < all / LOW_PART => findings.doubtful(about, says, next),
        _ => findings.good(about, says),
    }
}

fn readable(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Whether a listener could be opened at `address`. `runs`: whether the daemon itself runs, and is the one that has it.
pub fn port_is_free(findings: &mut Findings, about: &str, address: SocketAddr, runs: bool) {
    match TcpListener::bind(address) {
        Ok(_) if runs => findings.doubtful(
            about,
            format!("nobody listens on {address}, though the daemon runs"),
            "is this the configuration that it was started with? Look at its first lines in the log",
        ),
        Ok(_) => findings.good(about, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse && runs => {
            findings.good(about, format!("{address} is in use, and the daemon runs"));
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let next = format!("ss -ltnp 'sport = :{}' names who; another port in the configuration", address.port());
            findings.fault(about, format!("another program listens on {address}"), next);
        }
        Err(error) => {
            let next = "an address of this machine (ip address), and a port that this user may open (1024 and above, or CAP_NET_BIND_SERVICE)";
            findings.fault(about, format!("cannot listen on {address}: {error}"), next);
        }
    }
}

/// The same of a listener whose host may be a name: what nobody knows, nobody listens at.
pub fn listener_is_free(findings: &mut Findings, about: &str, (host, port): (&str, u16), runs: bool) {
    match resolved(host, port) {
        Ok(addresses) => port_is_free(findings, about, addresses[0], runs),
        Err(says) => findings.fault(about, says, looked_up_with(host)),
    }
}

/// Whether the name service knows `host`, within a few seconds.
pub fn name_resolves(findings: &mut Findings, about: &str, host: &str, port: u16) {
    match resolved(host, port) {
        Ok(addresses) => {
            let mut addresses: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            addresses.dedup();
            findings.good(about, format!("{host} is {}", addresses.join(", ")));
        }
        Err(says) => findings.fault(about, says, looked_up_with(host)),
    }
}

fn looked_up_with(host: &str) -> String {
    format!("getent hosts {host}; /etc/resolv.conf")
}

/// At least one address, or why there is none.
fn resolved(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let (told, answer) = mpsc::channel();
    let wanted = (host.to_owned(), port);
    std::thread::spawn(move || {
        // Whoever has stopped waiting hears nothing.
        let _ = told.send(wanted.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
    });
    match answer.recv_timeout(PATIENCE) {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => Err(format!("{host} has no address")),
        Ok(Err(error)) => Err(format!("{host} is not known: {error}")),
        Err(_) => Err(format!("no name service has answered for {host} in {} s", PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_full_disk_is_a_fault_and_one_that_gets_full_a_doubt() {
        const GB: u64 = 1_000_000_000;
        for (free, verdict) in [(15_000_000, Verdict::Fault), (GB, Verdict::Doubtful), (50 * GB, Verdict::Good)] {
            let mut findings = Findings::default();
            judge_space(&mut findings, "disk", Path::new("/d"), (free, 100 * GB));
            assert_eq!(findings.count(verdict), 1, "{findings:?}");
        }
    }

    #[test]
    fn a_disk_on_which_no_file_can_be_made_is_a_fault_however_much_room_it_has() {
        for (files, faults) in [((0, 4), 1), ((7, 4000), 1), ((8, 4000), 0), ((0, 0), 0)] {
            let mut findings = Findings::default();
            judge_files(&mut findings, "disk", Path::new("/d"), files);
            assert_eq!(findings.count(Verdict::Fault), faults, "{files:?}");
        }
    }

    #[test]
    fn a_port_that_another_program_has_is_a_fault_unless_the_daemon_runs() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = taken.local_addr().expect("bound");
        let looked = |runs| {
            let mut findings = Findings::default();
            port_is_free(&mut findings, "port", address, runs);
            findings
        };
        assert_eq!((looked(false).count(Verdict::Fault), looked(true).count(Verdict::Good)), (1, 1));
        drop(taken);
        assert_eq!((looked(false).count(Verdict::Good), looked(true).count(Verdict::Doubtful)), (1, 1));
    }

    #[test]
    fn a_name_that_nobody_knows_is_a_fault() {
        let mut findings = Findings::default();
        name_resolves(&mut findings, "server", "no-such-host.invalid", 1);
        name_resolves(&mut findings, "server", "localhost", 1);
        assert_eq!((findings.count(Verdict::Fault), findings.count(Verdict::Good)), (1, 1), "{findings:?}");
        let mut findings = Findings::default();
        listener_is_free(&mut findings, "port of health", ("no-such-host.invalid", 0), false);
        listener_is_free(&mut findings, "port of metrics", ("localhost", 0), false);
        assert_eq!((findings.count(Verdict::Fault), findings.count(Verdict::Good)), (1, 1), "{findings:?}");
    }
}
