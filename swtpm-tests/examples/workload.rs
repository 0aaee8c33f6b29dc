//! The Rust program of docs/workloads.md, to the letter: `tests/workloads_page.rs` compares them.

use std::error::Error;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use spiffe::X509Source;
use spiffe_rustls::{authorizer, mtls_client, mtls_server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_cert::Certificate;
use x509_cert::der::Decode;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // Both configurations follow each rotation by themselves.
    let source = X509Source::new().await?;
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", address, peer] => {
            let config = mtls_server(source).authorize(authorizer::exact([peer])?).build()?;
            serve(TlsAcceptor::from(Arc::new(config)), address).await
        }
        ["call", address, peer] => {
            let config = mtls_client(source).authorize(authorizer::exact([peer])?).build()?;
            call(TlsConnector::from(Arc::new(config)), address).await
        }
        ["watch"] => watch(source).await,
        _ => Err("serve ADDRESS ID, call ADDRESS ID, or watch".into()),
    }
}

async fn serve(acceptor: TlsAcceptor, address: &str) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(address).await?;
    loop {
        match acceptor.accept(listener.accept().await?.0).await {
            Ok(connection) => {
                let (mut connection, mut line) = (BufReader::new(connection), String::new());
                connection.read_line(&mut line).await?;
                connection.write_all(format!("rust heard {line}").as_bytes()).await?;
                connection.shutdown().await?;
            }
            Err(refused) => eprintln!("{refused}"),
        }
    }
}

async fn call(connector: TlsConnector, address: &str) -> Result<(), Box<dyn Error>> {
    let plain = TcpStream::connect(address).await?;
    // The name means nothing: whoever has the ID is let in.
    let mut connection = BufReader::new(connector.connect(ServerName::try_from("localhost")?, plain).await?);
    connection.write_all(b"rust\n").await?;
    let mut line = String::new();
    connection.read_line(&mut line).await?;
    print!("{line}");
    Ok(())
}

async fn watch(source: X509Source) -> Result<(), Box<dyn Error>> {
    let mut updates = source.updated();
    loop {
        let certificate = Certificate::from_der(source.svid()?.leaf().as_bytes())?;
        println!("{}", certificate.tbs_certificate().serial_number());
        updates.changed().await?;
    }
}
