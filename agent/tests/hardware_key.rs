//! Certificates for keys in hardware, on the socket: who is told what, and what is refused. Those that can be had are in the lab's tests,
//! which have a server and a token.

#[path = "support/served.rs"]
mod served;

use std::sync::Arc;

use ironroot_agent::endpoints::Limits;
use ironroot_agent::identities::Identities;
use ironroot_agent::server_answers::EntryTerms;
use ironroot_api::pb::hardware_key::hardware_key_client::HardwareKeyClient;
use ironroot_api::pb::hardware_key::{FetchIdentitiesRequest, FetchIdentitiesResponse, NewX509svidRequest};
use ironroot_api::unix_socket::connect;
use served::{Served, asking, patiently, td, terms};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

const IN_HARDWARE: &str = "ironroot:hardware_key";

#[test]
fn acts_as_a_workload() {
    served::act();
}

fn publish(served: &Served, unsigned: Vec<EntryTerms>) {
    let bundle = served.authority.bundle();
    let all = Identities::try_new(td("td"), vec![served.authority.issue("/usual", 0, 3600)], bundle).expect("sound");
    let unsigned = unsigned.into_iter().map(Arc::new).collect();
    served.publisher.send_replace(Arc::new(all.with_unsigned(unsigned)));
}

async fn client(served: &Served) -> HardwareKeyClient<Channel> {
    HardwareKeyClient::new(connect(&served.socket()).await.expect("connects"))
}

async fn identities(served: &Served) -> Result<Streaming<FetchIdentitiesResponse>, Status> {
    let asked = client(served).await.fetch_identities(asking(FetchIdentitiesRequest {})).await;
    asked.map(tonic::Response::into_inner)
}

async fn new_svid(served: &Served, spiffe_id: &str, csr: Vec<u8>) -> Status {
    let request = NewX509svidRequest { spiffe_id: spiffe_id.to_owned(), csr: csr.into() };
    patiently(client(served).await.new_x509svid(asking(request))).await.expect_err("there is no server")
}

fn csr() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("a key");
    rcgen::CertificateParams::default().serialize_request(&key).expect("signs").der().to_vec()
}

#[tokio::test]
async fn a_caller_is_told_its_identities_of_the_kind_and_of_each_change_of_them() {
    let served = Served::new(Limits::default());
    let entry = |revision_number| EntryTerms { revision_number, ..terms("/web", &["unix:uid:0", IN_HARDWARE]) };
    publish(&served, vec![entry(1), terms("/other", &["unix:uid:7", IN_HARDWARE])]);
    let mut stream = identities(&served).await.expect("told");
    let mut next = async || patiently(stream.message()).await.expect("no error").expect("no end");
    let first = next().await;
    let ids: Vec<_> = first.identities.iter().map(|identity| identity.spiffe_id.as_str()).collect();
    assert_eq!((ids, &first.bundle), (vec!["spiffe://td/web"], served.authority.bundle().concatenated()));
    // Nothing of it has changed: that is not told, and the next change is.
    publish(&served, vec![entry(1)]);
    publish(&served, vec![entry(2)]);
    let second = next().await;
    assert_ne!(second.identities[0].version, first.identities[0].version);
    publish(&served, Vec::new());
    let ended = patiently(stream.message()).await.expect_err("it is the caller's no more");
    assert_eq!(ended.code(), Code::PermissionDenied);
    assert_eq!(identities(&served).await.expect_err("nothing of the kind").code(), Code::PermissionDenied);
}

#[tokio::test]
async fn what_is_refused_is_named() {
    let mut served = Served::new(Limits::default());
    publish(&served, vec![terms("/web", &["unix:uid:0", IN_HARDWARE]), terms("/other", &["unix:uid:7", IN_HARDWARE])]);
    served.asked.close();
    let mut forged = csr();
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    for (spiffe_id, csr, code, text) in [
        ("", csr(), Code::InvalidArgument, "spiffe_id must be specified"),
        ("https://td/web", csr(), Code::InvalidArgument, "invalid requested SPIFFE ID"),
        ("spiffe://td/other", csr(), Code::PermissionDenied, "no identity issued"),
        ("spiffe://td/usual", csr(), Code::PermissionDenied, "no identity issued"),
        ("spiffe://td/web", vec![1, 2, 3], Code::InvalidArgument, "invalid CSR: not a DER-encoded PKCS#10 request"),
        ("spiffe://td/web", forged, Code::InvalidArgument, "invalid CSR: "),
        (
            "spiffe://td/web",
            csr(),
            Code::Unavailable,
            "no certificate for spiffe://td/web: the server cannot be reached",
        ),
    ] {
        let status = new_svid(&served, spiffe_id, csr).await;
        assert_eq!(status.code(), code, "{text}: {status}");
        assert!(status.message().contains(text), "{text}: {status}");
    }
    let status = new_svid(&served, "spiffe://td/web", vec![0; 64 * 1024]).await;
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status}");
    let without_header = client(&served).await.fetch_identities(FetchIdentitiesRequest {}).await.expect_err("refused");
    assert!(without_header.message().contains("security header"), "{without_header}");
}
