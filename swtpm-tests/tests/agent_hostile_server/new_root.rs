//! A server whose root was lost and made anew, while the agent's certificate is still good.

use super::*;

impl Agent {
    /// The operator puts another bundle in the place of the one that there was.
    fn place(&self, bundle_pem: &str) {
        std::fs::write(self.directory.path().join("bootstrap.pem"), bundle_pem).expect("bundle written");
    }
}

/// An agent that serves, and at its server's address one whose root began `ago`.
async fn met_by_another_root(ago: time::Duration) -> (Agent, Option<String>, ScriptedServer) {
    let mut server = ScriptedServer::start();
    let agent = serving(&server).await;
    let good = agent.serial();
    server.stop();
    let another = ScriptedServer::start_at(server.address(), ToyCa::begun(TRUST_DOMAIN, ago));
    until("the agent meets it, and does not believe it", || another.asked().failed_handshakes > 2).await;
    assert_eq!((another.asked().attestations, agent.serial()), (0, good.clone()));
    (agent, good, another)
}

//= FLT-A4
#[tokio::test]
async fn an_agent_recovers_alone_when_the_bundle_of_the_new_root_is_put_in_place() {
    let (agent, good, server) = met_by_another_root(time::Duration::HOUR).await;
    agent.place(&server.bundle_pem());
    until("the new root's SVID is served", || agent.serial().is_some_and(|serial| Some(serial) != good)).await;
    let syncs = server.asked().syncs;
    until("several syncs", || server.asked().syncs > syncs + 5).await;
    assert_eq!((server.asked().attestations, agent.authorities()), (1, 1), "it attested once");
    let bundle = agent.record().and_then(|record| record.bundle).expect("kept");
    assert_eq!(bundle.concatenated(), &agent.identities.borrow().bundle().expect("a bundle").concatenated().clone());
}

//= FLT-N1
#[tokio::test]
async fn an_older_bundle_in_the_place_of_the_configured_one_lets_nobody_in() {
    let (agent, good, thief) = met_by_another_root(time::Duration::WEEK).await;
    agent.place(&thief.bundle_pem());
    let failed = thief.asked().failed_handshakes;
    until("it tries again and again", || thief.asked().failed_handshakes > failed + 5).await;
    assert_eq!((thief.asked().attestations, agent.serial()), (0, good));
}

//= FLT-A22
#[tokio::test]
async fn nothing_is_lost_while_the_server_of_the_new_root_does_not_let_the_agent_in() {
    let (agent, good, server) = met_by_another_root(time::Duration::HOUR).await;
    server.play(|script| script.attestation_refusal = Some(Code::PermissionDenied));
    agent.place(&server.bundle_pem());
    until("it is refused", || server.asked().attestations > 2).await;
    assert_eq!(agent.serial(), good, "what it holds is served to its end");
    server.play(|script| script.attestation_refusal = None);
    until("it is let in", || agent.serial().is_some_and(|serial| Some(serial) != good)).await;
}
