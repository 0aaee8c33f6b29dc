//! The server, as an agent would first speak to it; and the clock, by its certificate.

use std::time::Duration;

use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::utc;
use ironroot_shell::command_line::doctor::Findings;
use ironroot_shell::command_line::{counted, describe};

use crate::config::{AgentConfig, Bootstrap};
use crate::server_channel::{ChannelError, Doubt, Server};
use crate::sync::read_bundle;
use crate::trusted_time::TrustedTime;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) async fn look(findings: &mut Findings, config: &AgentConfig) {
    let Bootstrap::TrustBundle { path, format } = &config.bootstrap else {
        let next = "trust_bundle_path, with what ironroot-server bundle show prints";
        return findings.doubtful("trust bundle", "there is none: whoever answers first is believed", next);
    };
    let bundle = match read_bundle(path, *format, &config.trust_domain) {
        Ok(bundle) => bundle,
        Err(error) => {
            let next = format!("on the server: ironroot-server bundle show; as {}", path.display());
            return findings.fault("trust bundle", describe(&error), next);
        }
    };
    findings.good(
        "trust bundle",
        format!("{} has {}", path.display(), counted(bundle.authorities().len(), "authority", "authorities")),
    );
    let time = TrustedTime::new();
    let server = Server::new(&config.server_address, config.server_port, &config.trust_domain, time.clone());
    let asked = async {
        let channel = server.bootstrap(bundle.anchors().clone(), Doubt::Refused).await?;
        Ok::<_, ChannelError>(BundleClient::new(channel).get_bundle(GetBundleRequest::default()).await)
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(Ok(_))) => {
            findings.good("server", format!("{} proves that it is the trust domain's", server.address()));
            findings.good("clock", format!("{}: the server's certificate is valid then", utc(time.now_unix())));
        }
        Ok(Ok(Err(status))) => {
            let says = format!("{} is there, and does not give its bundle: {}", server.address(), status.message());
            findings.fault("server", says, "on the server: ironroot-server healthcheck");
        }
        Ok(Err(error)) => refused(findings, &server, &error),
        Err(_) => findings.fault(
            "server",
            format!("{} has not answered for {} s", server.address(), PATIENCE.as_secs()),
            reach(&server),
        ),
    }
}

fn refused(findings: &mut Findings, server: &Server, error: &ChannelError) {
    match error {
        error if error.is_doubt() => {
            let next =
                "timedatectl; and on the server: date; an agent asks the server for a fresh signature and goes on";
            findings.fault("clock", describe(error), next);
        }
        ChannelError::Refused(_) => {
            let next = "the bundle is of another or an older server: on it, ironroot-server bundle show";
            findings.fault("server", describe(error), next);
        }
        ChannelError::Connect(_) => findings.fault("server", describe(error), reach(server)),
    }
}

fn reach(server: &Server) -> String {
    format!("is a server started there, and does a firewall let this device reach {}?", server.address())
}
