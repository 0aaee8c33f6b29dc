//! A workload of the lab: takes its identity from the Workload API and talks mutual TLS to another one.
//!
//!   lab-workload serve SOCKET               prints the port, then who called
//!   lab-workload dial SOCKET PORT SPIFFE-ID  calls, requires that ID of the other side

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use ironroot_api::SpiffeId;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::workload::X509svid;
use ironroot_api::tls::{ServerTrust, SvidResolver, TrustAnchors, client_config, provider, server_config};
use ironroot_lab::workload_client;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", socket] => serve(Path::new(socket)).await,
        ["dial", socket, port, id] => dial(Path::new(socket), port.parse()?, SpiffeId::parse(id)?).await,
        _ => Err("usage: lab-workload serve SOCKET | dial SOCKET PORT SPIFFE-ID".into()),
    }
}

struct Identity {
    id: SpiffeId,
    anchors: Arc<TrustAnchors>,
    svid: Arc<SvidResolver>,
}

async fn identity(socket: &Path) -> Outcome<Identity> {
    let response = workload_client::fetch(socket).await?;
    let svid: &X509svid = response.svids.first().ok_or("no identity")?;
    let ders = |bytes: &[u8]| -> Outcome<Vec<CertificateDer<'static>>> {
        Ok(Certificate::parse_concatenated(bytes)?.into_iter().map(|c| c.der().clone()).collect())
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.x509_svid_key.to_vec()));
    let id = SpiffeId::parse(&svid.spiffe_id)?;
    Ok(Identity {
        anchors: TrustAnchors::new(id.trust_domain(), &ders(&svid.bundle)?)?,
        svid: SvidResolver::new(CertifiedKey::from_der(ders(&svid.x509_svid)?, key, &provider())?),
        id,
    })
}

async fn serve(socket: &Path) -> Outcome<()> {
    let own = identity(socket).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    let acceptor = TlsAcceptor::from(server_config(own.anchors, own.svid));
    let mut tls = acceptor.accept(listener.accept().await?.0).await?;
    let caller =
        tls.get_ref().1.peer_certificates().and_then(<[_]>::first).ok_or("the caller showed no certificate")?;
    let caller = Certificate::parse(caller)?.leaf_spiffe_id()?;
    tls.write_all(format!("{} greets {caller}", own.id).as_bytes()).await?;
    tls.shutdown().await?;
    println!("{caller}");
    Ok(())
}

async fn dial(socket: &Path, port: u16, expected: SpiffeId) -> Outcome<()> {
    let own = identity(socket).await?;
    let connector = TlsConnector::from(client_config(ServerTrust::Bundle { anchors: own.anchors, expected }, own.svid));
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut tls = connector.connect(ServerName::try_from("workload.invalid")?, tcp).await?;
    let mut greeting = String::new();
    tls.read_to_string(&mut greeting).await?;
    println!("{greeting}");
    Ok(())
}
