//! TLS to the database server: it proves its name, and passwords are bound to the channel.
//!
//! Source: RFC 5929 §4 (tls-server-end-point), RFC 5802 §6 (SCRAM's channel binding).

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use const_oid::db::rfc5912;
use der::Decode;
use ironroot_text::secret_file::{self, Readers};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use x509_cert::Certificate;

use super::address::{Roots, ServerProof};

/// Longest file of a key accepted, bytes.
const MAX_KEY_BYTES: usize = 64 * 1024;

/// Makes the TLS of one connection after the other.
#[derive(Clone)]
pub(super) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Reads the files that `proof` names, as they are now.
    pub fn of(proof: &ServerProof) -> io::Result<Self> {
        let builder = ClientConfig::builder_with_provider(proof.exchanges.provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots(&proof.roots)?);
        let mut config = match &proof.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates("sslcert", certificate)?;
                builder.with_client_auth_cert(chain, private_key(key)?).map_err(io::Error::other)?
            }
        };
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }
}

fn roots(of: &Roots) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match of {
        Roots::System => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        Roots::File(path) => {
            certificates("sslrootcert", path)?
                .into_iter()
                .try_for_each(|der| roots.add(der))
                .map_err(named("sslrootcert", path))?;
        }
    }
    if roots.is_empty() { Err(io::Error::other("sslrootcert: there is no authority in it")) } else { Ok(roots) }
}

fn certificates(keyword: &str, path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(named(keyword, path))
}

fn private_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    let pem = secret_file::read(path, MAX_KEY_BYTES, Readers::Owner).map_err(named("sslkey", path))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(named("sslkey", path))
}

fn named<E: std::fmt::Display>(what: &str, path: &Path) -> impl FnOnce(E) -> io::Error {
    move |error| io::Error::other(format!("{what} {}: {error}", path.display()))
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Stream<S>;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Handshake> {
        let name = ServerName::try_from(domain.to_owned()).map_err(io::Error::other)?;
        Ok(Handshake { connector: self.0.clone().into(), name })
    }
}

/// A handshake with the server of that name, to be done.
pub(super) struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Handshake {
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { Ok(Stream(self.connector.connect(self.name, stream).await?)) })
    }
}

/// A stream inside of TLS.
pub(super) struct Stream<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let bound = leaf.and_then(|der| Some(digest(hash_of(der)?, der).as_ref().to_vec()));
        bound.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// The hash of the certificate's signature; none where the RFC names none.
fn hash_of(certificate: &[u8]) -> Option<&'static Algorithm> {
    match Certificate::from_der(certificate).ok()?.signature_algorithm().oid {
        rfc5912::SHA_1_WITH_RSA_ENCRYPTION | rfc5912::SHA_256_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_256 => {
            Some(&SHA256)
        }
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 => Some(&SHA384),
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 => Some(&SHA512),
        _ => None,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
