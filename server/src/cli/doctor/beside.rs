//! What the server needs beside this machine's own: the data store, and the authority above.

use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ironroot_api::certificate::Certificate;
use ironroot_api::utc;
use ironroot_shell::command_line::describe;
use ironroot_shell::command_line::doctor::Findings;
use ironroot_shell::serving_certificate::ServingCertificate;
use rustls_pki_types::CertificateDer;

use crate::ca::{Exchange, SpireServer};
use crate::config::{OidcListener, ServerConfig, UpstreamConfig, WebCertificate, WebIdentity};
use crate::store::StoreError;

/// How long the server above may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Certificates of the web's are renewed earlier than this before their end, by whatever renews them.
const SOON_SECONDS: i64 = 7 * 24 * 60 * 60;

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

/// Certificates of the web's in files that somebody else renews. Those of an ACME server, `status` tells of a server that runs.
pub(super) fn look_at_web(findings: &mut Findings, config: &ServerConfig, now_unix: i64) {
    let bundle = config.federation.bundle_endpoint.as_ref().and_then(|endpoint| match &endpoint.identity {
        WebIdentity::Web(certificate) => Some(certificate),
        WebIdentity::Spiffe => None,
    });
    let discovery = config.oidc.as_ref().and_then(|oidc| match &oidc.listener {
        OidcListener::Https(_, certificate) => Some(certificate),
        OidcListener::Socket(_) => None,
    });
    let exchange = config.token_exchange.as_ref().map(|exchange| &exchange.certificate);
    for (about, certificate) in [
        ("certificate of the bundle", bundle),
        ("certificate of discovery", discovery),
        ("certificate of token exchange", exchange),
    ] {
        let Some(WebCertificate::Files(files)) = certificate else { continue };
        let path = files.certificate.display().to_string();
        match ServingCertificate::load(files.clone()) {
            Ok(loaded) => say_when_it_ends(findings, (about, &path), loaded.resolver().chain().first(), now_unix),
            Err(why) => findings.fault(about, describe(&why), "whoever renews these files: look there"),
        }
    }
}

fn say_when_it_ends(
    findings: &mut Findings,
    (about, path): (&str, &str),
    leaf: Option<&CertificateDer<'_>>,
    now_unix: i64,
) {
    let next = "whoever renews this file: look there; the server takes the new one by itself";
    let Some(end) = leaf.and_then(|leaf| Certificate::parse(leaf).ok()).map(|leaf| leaf.not_after_unix()) else {
        return findings.fault(about, format!("{path} cannot be read as a certificate"), next);
    };
    let says = format!("{path} is valid until {}", utc(end));
    match end - now_unix {
        ..0 => findings.fault(about, format!("{path} has ended, {}", utc(end)), next),
        0..SOON_SECONDS => findings.doubtful(about, says, next),
        _ => findings.good(about, says),
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

/// Whether a request for a CA waits for a root that is away.
pub(super) fn look_at_ceremony(findings: &mut Findings, config: &ServerConfig) {
    let Some(exchange) = config.upstream.as_ref().and_then(UpstreamConfig::ceremony) else { return };
    say_what_waits(findings, &exchange);
}

fn say_what_waits(findings: &mut Findings, exchange: &Exchange) {
    let about = "request to the root";
    match exchange.waiting() {
        Ok(None) => findings.good(about, "none waits"),
        Ok(Some(waiting)) => findings.doubtful(
            about,
            format!("the next CA waits for the root: {}", waiting.path().display()),
            "plug the root's token in; or ironroot-server ca ceremony sign there, and ironroot-server ca ceremony take here",
        ),
        Err(why) => findings.fault(about, describe(&why), "as the daemon's user; the server writes a damaged one anew"),
    }
}

#[cfg(test)]
mod tests {
    use ironroot_shell::command_line::doctor::Verdict;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn a_request_that_waits_for_the_root_is_told_with_what_to_do() {
        let directory = tempfile::tempdir().expect("directory");
        let exchange = Exchange::at(directory.path().to_owned());
        let told = |verdict| {
            let mut findings = Findings::default();
            say_what_waits(&mut findings, &exchange);
            assert_eq!(findings.count(verdict), 1, "{findings:?}");
            format!("{findings:?}")
        };
        told(Verdict::Good);
        let request = CertificateParams::default().serialize_request(&KeyPair::generate().expect("a key"));
        std::fs::write(exchange.request_path(), request.expect("signs").pem().expect("PEM")).expect("written");
        let said = told(Verdict::Doubtful);
        assert!(said.contains("ca-request.pem") && said.contains("ironroot-server ca ceremony sign"), "{said}");
        std::fs::write(exchange.request_path(), "damaged").expect("written");
        told(Verdict::Fault);
    }

    #[test]
    fn a_certificate_that_has_ended_is_a_fault_and_one_that_ends_soon_is_told() {
        let mut params = CertificateParams::new(vec!["w.example".to_owned()]).expect("legal");
        let end = 1_800_000_000;
        params.not_after = time::OffsetDateTime::from_unix_timestamp(end).expect("in range");
        let leaf = params.self_signed(&KeyPair::generate().expect("a key")).expect("signs").der().clone();
        for (now, verdict) in [
            (end - SOON_SECONDS, Verdict::Good),
            (end - SOON_SECONDS + 1, Verdict::Doubtful),
            (end, Verdict::Doubtful),
            (end + 1, Verdict::Fault),
        ] {
            let mut findings = Findings::default();
            say_when_it_ends(&mut findings, ("c", "/c.pem"), Some(&leaf), now);
            assert_eq!(findings.count(verdict), 1, "{now}: {findings:?}");
        }
    }
}
