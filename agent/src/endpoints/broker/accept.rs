//! Connections of brokers: admitted as any local user's, then mutual TLS, in the user's turns.
//!
//! The agent's own key may sign in a chip, which blocks: so handshakes are off the runtime's threads, as attestations are.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use ironroot_api::tls::server_config_for;
use ironroot_api::unix_socket::{SocketListener, Tolerant, incoming};
use ironroot_api::watched::{Patience, Watched};
use ironroot_attest::workload::Witnessed;
use rustls::{CertificateError, OtherError};
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::warn;

use super::BrokerSocketConfig;
use super::trust::{AuthenticatedBroker, BrokerJudge, BrokerTrust, BrokerUnproven};
use crate::endpoints::admission::About;
use crate::endpoints::caller::{Gate, take_in};
use crate::endpoints::paced::Paced;
use crate::endpoints::serving::Serving;
use crate::endpoints::tenancy::{PATIENCE, Tenancy};

/// How long a handshake may take. A slow chip signs within a second.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// A broker's connection as the HTTP/2 server takes it.
pub(in crate::endpoints) type BrokerConnection = Watched<Tolerant<TlsStream<Paced<Witnessed>>>, Tenancy>;

/// Why a connection is dropped before a word of HTTP/2.
#[derive(Debug, thiserror::Error)]
enum NotShaken {
    #[error("its user has too many handshakes and attestations in progress")]
    Turn,
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("the TLS handshake took too long, or the agent is stopping")]
    Late,
    #[error("whoever connected is no broker")]
    Unproven(#[from] BrokerUnproven),
}

impl NotShaken {
    /// What our own judge said, out of rustls's layers, which people cannot read.
    fn of(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inside| inside.downcast_ref::<rustls::Error>());
        let judged = match tls {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) => why.downcast_ref(),
            _ => None,
        };
        judged.cloned().map_or_else(|| Self::Tls(error), Self::Unproven)
    }
}

#[derive(Clone)]
struct Acceptor {
    tls: TlsAcceptor,
    trust: Arc<BrokerTrust>,
    serving: Serving,
}

/// Handshakes that are waited for at once: as many connections as admission lets in, so that nobody's keep another user's waiting.
const MAX_HANDSHAKES: usize = 4096;

/// Takes in connections on `listener`.
pub(in crate::endpoints) fn connections(
    listener: SocketListener,
    gate: Gate,
    config: BrokerSocketConfig,
    trust: Arc<BrokerTrust>,
    serving: Serving,
) -> impl Stream<Item = Result<BrokerConnection, Infallible>> {
    let tls = server_config_for(BrokerJudge(trust.clone()), config.certificate, config.key_exchanges);
    let acceptor = Acceptor { tls: tls.into(), trust, serving };
    let taken_in = incoming(listener, move |stream| take_in(&gate, stream));
    let shaken = taken_in.map(move |taken_in| {
        let acceptor = acceptor.clone();
        async move {
            let Ok((stream, tenancy)) = taken_in;
            acceptor.accept(stream, tenancy).await
        }
    });
    shaken.buffer_unordered(MAX_HANDSHAKES).filter_map(|connection| std::future::ready(connection.map(Ok)))
}

impl Acceptor {
    async fn accept(self, stream: Paced<Witnessed>, tenancy: Tenancy) -> Option<BrokerConnection> {
        let uid = tenancy.caller().connection().uid();
        match self.shake(uid, stream).await {
            Ok((stream, broker)) => {
                // A connection ends with the certificate that it began with: clients then come back with the next.
                let patience = Patience { age: Some(self.trust.lasts(&broker)), ..PATIENCE };
                Some(Watched::new(Tolerant::new(stream), tenancy.proven(broker), patience))
            }
            Err(why) => {
                if let Some(pass) = self.serving.admission().should_log(uid, About::Broker, Instant::now()) {
                    let (pid, reason) = (tenancy.caller().pid(), &why as &dyn Error);
                    warn!(uid, pid, reason, suppressed = pass.suppressed, "refused a connection of a broker");
                }
                None
            }
        }
    }

    async fn shake(
        &self,
        uid: u32,
        stream: Paced<Witnessed>,
    ) -> Result<(TlsStream<Paced<Witnessed>>, AuthenticatedBroker), NotShaken> {
        let turn = self.serving.turn_of(uid).await.map_err(|_| NotShaken::Turn)?;
        let (acceptor, runtime) = (self.clone(), Handle::current());
        let shaking = tokio::task::spawn_blocking(move || {
            let shaken = runtime.block_on(acceptor.in_time(stream));
            drop(turn);
            shaken
        });
        let tls = shaking.await.map_err(|_| NotShaken::Late)??;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let broker = self.trust.admit(chain)?;
        Ok((tls, broker))
    }

    async fn in_time(&self, stream: Paced<Witnessed>) -> Result<TlsStream<Paced<Witnessed>>, NotShaken> {
        tokio::select! {
            shaken = self.tls.accept(stream) => shaken.map_err(NotShaken::of),
            () = tokio::time::sleep(HANDSHAKE_DEADLINE) => Err(NotShaken::Late),
            () = self.serving.is_stopping() => Err(NotShaken::Late),
        }
    }
}
