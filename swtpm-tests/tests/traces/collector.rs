//! Collectors: a real receiver of OTLP on OpenTelemetry's own messages, and those that no daemon may suffer from.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use ironroot_lab::web_certificate::WebCertificate;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// A span, and the service that sent it.
#[derive(Clone, Debug)]
pub struct Received {
    pub service: String,
    pub span: Span,
}

/// What has arrived.
#[derive(Clone, Debug, Default)]
pub struct Spans(Arc<Mutex<Vec<Received>>>);

impl Spans {
    /// All of them.
    pub fn all(&self) -> Vec<Received> {
        self.0.lock().expect("no panic").clone()
    }

    /// The first of that service and name that is `good`.
    pub fn find(&self, service: &str, name: &str, good: impl Fn(&Span) -> bool) -> Option<Span> {
        let is_it = |it: &Received| it.service == service && it.span.name == name && good(&it.span);
        self.all().into_iter().find(is_it).map(|it| it.span)
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut all = self.0.lock().expect("no panic");
        for resource_spans in request.into_inner().resource_spans {
            let resource = resource_spans.resource.unwrap_or_default();
            let service = text(&resource.attributes, "service.name").unwrap_or_default();
            let spans = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            all.extend(spans.map(|span| Received { service: service.clone(), span }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// The text of an attribute.
pub fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|it| it.key == key)?.value.as_ref()?.value.as_ref()?;
    if let Value::StringValue(text) = value { Some(text.clone()) } else { None }
}

/// A collector, until it is dropped.
pub struct Collector {
    pub spans: Spans,
    pub port: u16,
    _runtime: Runtime,
}

impl Collector {
    /// In the clear, on TCP.
    pub fn start() -> Self {
        Self::at(0)
    }

    /// The same at that port.
    pub fn at(port: u16) -> Self {
        let (runtime, spans) = (runtime(), Spans::default());
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", port))).expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let server = Server::builder().add_service(TraceServiceServer::new(spans.clone()));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { spans, port, _runtime: runtime }
    }

    /// Over TLS, which ends before it.
    pub fn secured(certificate: &WebCertificate) -> Self {
        let (collector, tls) = (Self::start(), acceptor(certificate));
        let (runtime, behind) = (&collector._runtime, collector.port);
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).expect("bound");
        let port = listener.local_addr().expect("bound").port();
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut outer) = tls.accept(tcp).await else { continue };
                let mut inner = tokio::net::TcpStream::connect(("127.0.0.1", behind)).await.expect("it listens");
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut outer, &mut inner).await });
            }
        });
        Self { port, ..collector }
    }

    /// On a unix socket.
    pub fn on_socket(path: &Path) -> Self {
        let (runtime, spans) = (runtime(), Spans::default());
        let service = TraceServiceServer::new(spans.clone());
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(path) }).expect("bound");
        let anyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(path, anyone).expect("set");
        let incoming = UnixListenerStream::new(listener);
        runtime.spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Self { spans, port: 0, _runtime: runtime }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime")
}

fn acceptor(certificate: &WebCertificate) -> tokio_rustls::TlsAcceptor {
    let [chain, key] = certificate.certificate_and_key();
    let chain: Vec<_> = CertificateDer::pem_file_iter(chain).expect("read").collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(ironroot_api::tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth();
    let mut config = config.with_single_cert(chain, key).expect("they belong together");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config).into()
}

/// One that takes every connection and does with it what `mischief` says, on a thread of its own; its port.
pub fn hostile(mischief: fn(TcpStream, &mut Vec<TcpStream>)) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        let mut held = Vec::new();
        listener.incoming().flatten().for_each(|stream| mischief(stream, &mut held));
    });
    port
}

/// Takes the connection and never says a word.
pub fn hangs(stream: TcpStream, held: &mut Vec<TcpStream>) {
    held.push(stream);
}

/// Answers with what is no HTTP/2.
pub fn talks_nonsense(mut stream: TcpStream, held: &mut Vec<TcpStream>) {
    drop(stream.write_all(&[0xA5; 4096]));
    held.push(stream);
}
