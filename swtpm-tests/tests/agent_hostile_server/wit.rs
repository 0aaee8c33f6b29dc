//! A server that signs X509-SVIDs and is ill where it signs WIT-SVIDs.

use super::*;

#[tokio::test]
async fn a_wit_svid_that_was_not_to_be_had_is_asked_for_again_soon() {
    let server = ScriptedServer::start();
    server.play(|script| script.wit_refusal = Some(Code::Unavailable));
    let agent = serving(&server).await;
    until("it is asked for again and again", || server.asked().wits > 4).await;
    assert!(agent.serial().is_some(), "the X509-SVID is served meanwhile");
}

#[tokio::test]
async fn a_server_that_signs_none_is_asked_once() {
    let server = ScriptedServer::start();
    server.play(|script| script.wit_refusal = Some(Code::Unimplemented));
    let agent = serving(&server).await;
    let syncs = server.asked().syncs;
    until("many syncs", || server.asked().syncs > syncs + 20).await;
    assert_eq!((server.asked().wits, server.asked().batches), (1, 1));
    assert!(agent.serial().is_some());
}
