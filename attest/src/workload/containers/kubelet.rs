//! The kubelet of this machine: which pod is a container in?
//!
//! Source: kubelet's `/pods`; SPIRE, pkg/agent/plugin/workloadattestor/k8s.

mod pods;
mod trust;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ironroot_text::secret_file::{self, Readers};
use rustls::ClientConfig;
use zeroize::Zeroizing;

pub use trust::{ClientProof, KubeletError, ServerProof};

use super::place::{Keeper, Place};
use super::question::{Door, Question};
use super::selectors;
use super::untold::ContainerUntold;
use crate::Selector;
use pods::Pods;

/// Longest list of pods read, bytes: a node has 110, of some 20 kB.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// Longest token read, bytes. Kubernetes' are of 1 to 2 kB.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Where the kubelet is asked if no name of this node is given.
const THIS_MACHINE: &str = "127.0.0.1";

/// How the kubelet is asked.
#[derive(Clone, Debug)]
pub struct KubeletConfig {
    /// Its port, and whether it speaks TLS there.
    pub port: KubeletPort,
    /// The node's name, which the kubelet's certificate is for; `None`: it is asked on this machine, and its certificate is of any name.
    pub node_name: Option<String>,
    /// How often it is asked for a container that it does not know yet.
    pub max_poll_attempts: u32,
    /// The pause between.
    pub poll_retry_interval: Duration,
    /// Whether nothing is told of the container itself, so that the pod's selectors are told before the kubelet knows that it runs.
    pub disable_container_selectors: bool,
    /// Whether a kubelet is refused that does not agree on X25519MLKEM768.
    pub only_hybrid_key_exchange: bool,
    /// The last answer, for a moment.
    pub last: Arc<LastAnswer>,
}

/// See [`KubeletConfig::port`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeletPort {
    /// Without TLS and without a question who asks.
    ReadOnly(u16),
    /// With TLS.
    Secure {
        /// The port.
        port: u16,
        /// How the kubelet proves itself.
        server: ServerProof,
        /// How we do.
        client: ClientProof,
    },
}

/// What the kubelet said last, and when; used again by others within [`KubeletConfig::poll_retry_interval`].
#[derive(Debug, Default)]
pub struct LastAnswer(Mutex<Option<(Instant, Arc<Pods>)>>);

impl PartialEq for KubeletConfig {
    fn eq(&self, other: &Self) -> bool {
        let all = |of: &Self| {
            let poll = (of.max_poll_attempts, of.poll_retry_interval);
            (of.node_name.clone(), poll, of.disable_container_selectors, of.only_hybrid_key_exchange)
        };
        self.port == other.port && all(self) == all(other)
    }
}

impl Eq for KubeletConfig {}

impl KubeletConfig {
    /// What is said of the pod that the container at `place` is in. Blocks.
    pub(super) fn ask(&self, place: &Place, deadline: Instant) -> Result<Vec<Selector>, ContainerUntold> {
        let Keeper::Kubernetes { pod } = &place.keeper else { return Ok(Vec::new()) };
        let mut attempts = 0;
        let mut newer_than = None;
        loop {
            let (asked_at, pods) = self.pods(newer_than, deadline)?;
            if let Some(values) = pods.values(&place.id, pod.as_deref(), !self.disable_container_selectors)? {
                return selectors("k8s", values.into_iter());
            }
            attempts += 1;
            let next = asked_at + self.poll_retry_interval;
            if attempts >= self.max_poll_attempts || next >= deadline {
                return Err(ContainerUntold::NoPod(place.id.clone()));
            }
            sleep(next.saturating_duration_since(Instant::now()));
            newer_than = Some(asked_at);
        }
    }

    /// The kubelet's pods, asked for after `newer_than`, and when that was.
    fn pods(&self, newer_than: Option<Instant>, deadline: Instant) -> Result<(Instant, Arc<Pods>), ContainerUntold> {
        if let Some((at, pods)) = self.last.get()
            && newer_than.is_none_or(|than| at > than)
            && at.elapsed() < self.poll_retry_interval
        {
            return Ok((at, pods));
        }
        let (at, pods) = (Instant::now(), Arc::new(self.fetch(deadline)?));
        self.last.set(at, pods.clone());
        Ok((at, pods))
    }

    fn fetch(&self, deadline: Instant) -> Result<Pods, ContainerUntold> {
        let token = self.token()?;
        let door = match &self.port {
            KubeletPort::ReadOnly(port) => Door::Tcp(*port),
            KubeletPort::Secure { port, .. } => Door::Tls {
                host: self.node_name.as_deref().unwrap_or(THIS_MACHINE),
                port: *port,
                config: self.tls()?.expect("a secure port"),
            },
        };
        let question =
            Question { path: "/pods", bearer: token.as_ref().map(|t| t.as_str()), max_bytes: MAX_ANSWER_BYTES };
        let answer = door.ask(question, deadline)?;
        Pods::parse(&answer).map_err(|error| ContainerUntold::Malformed { place: door.place(), error })
    }

    /// Read each time: Kubernetes renews them.
    fn token(&self) -> Result<Option<Zeroizing<String>>, KubeletError> {
        let KubeletPort::Secure { client: ClientProof::Token(path), .. } = &self.port else { return Ok(None) };
        // Kubernetes gives a service's token to its group.
        let bytes = secret_file::read(path, MAX_TOKEN_BYTES, Readers::OwnerAndGroup)?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
        match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Some(Zeroizing::new(text.to_owned()))),
            false => Err(KubeletError::NoToken(path.clone())),
        }
    }

    fn tls(&self) -> Result<Option<Arc<ClientConfig>>, KubeletError> {
        match &self.port {
            KubeletPort::ReadOnly(_) => Ok(None),
            KubeletPort::Secure { server, client, .. } => {
                let provider = trust::provider(self.only_hybrid_key_exchange);
                trust::client_config(provider, server, client, self.node_name.is_some()).map(Some)
            }
        }
    }

    /// Reads the token once, for whoever checks a configuration.
    pub fn try_token(&self) -> Result<(), KubeletError> {
        self.token().map(drop)
    }

    /// The same of the other files.
    pub fn try_tls(&self) -> Result<(), KubeletError> {
        self.tls().map(drop)
    }
}

impl LastAnswer {
    fn get(&self) -> Option<(Instant, Arc<Pods>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, at: Instant, pods: Arc<Pods>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, pods));
    }
}

/// Where a pod finds the authorities of its cluster. Source: Kubernetes, "Accessing the API from a Pod".
pub const DEFAULT_CA_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// Where it finds its token.
pub const DEFAULT_TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

impl Default for ServerProof {
    fn default() -> Self {
        Self::Authorities(PathBuf::from(DEFAULT_CA_PATH))
    }
}

impl Default for ClientProof {
    fn default() -> Self {
        Self::Token(PathBuf::from(DEFAULT_TOKEN_PATH))
    }
}
