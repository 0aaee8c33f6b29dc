//! Keeps certificates current: one order at a time, each name when it is due.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::Account;
use ironroot_api::tls::{ACME_TLS_ALPN, KeyExchanges, web_server_config_for};
use ironroot_api::utc;
use ironroot_shell::clock::wall_unix;
use rustls::ServerConfig;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::account;
use super::certificate::WebCertificate;
use super::doorman::Doorman;
use super::error::AcmeError;
use super::folder::{Folder, FolderError};
use super::order::order;
use super::pace;
use crate::chance;
use crate::config::AcmeConfig;

/// The wall clock is looked at as often as this: it may be set.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Has certificates of the web's from a CA, for a listener's names.
#[derive(Debug)]
pub struct Keeper {
    config: AcmeConfig,
    exchanges: KeyExchanges,
    folder: Folder,
    doorman: Arc<Doorman>,
    names: Vec<Name>,
}

#[derive(Debug)]
struct Name {
    name: String,
    next: Next,
    failures: u32,
    /// Until when what is shown is valid, UNIX seconds.
    until: Option<i64>,
}

/// When a certificate is ordered.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// By the wall, UNIX seconds, as certificates have it.
    At(i64),
    /// By the clock that nobody sets: where there is none, and after a failure.
    After(Instant),
}

impl Next {
    /// How long until then.
    fn wait(self, now_unix: i64, now: Instant) -> Duration {
        match self {
            Self::At(at) => Duration::from_secs(u64::try_from(at.saturating_sub(now_unix)).unwrap_or(0)),
            Self::After(at) => at.saturating_duration_since(now),
        }
    }
}

impl Keeper {
    /// Takes up what is kept below `base`; asks nobody yet. Blocks.
    pub fn open(config: AcmeConfig, base: &Path, exchanges: KeyExchanges) -> Result<Self, FolderError> {
        let folder = Folder::open(base, &config.directory_url)?;
        let mut keeper = Self { doorman: Doorman::new(&config.names), names: Vec::new(), folder, config, exchanges };
        let now = wall_unix();
        for name in keeper.config.names.clone() {
            let kept = keeper.folder.certificate(&name, now)?;
            // By the clock that nobody sets: the wall may be years ahead until somebody sets it.
            let mut entry = Name { name, next: Next::After(Instant::now()), failures: 0, until: None };
            if let Some(certificate) = kept {
                entry.take(&keeper.doorman, &certificate);
            }
            keeper.names.push(entry);
        }
        Ok(keeper)
    }

    /// Shows what there is.
    pub fn tls(&self) -> Arc<ServerConfig> {
        web_server_config_for(self.doorman.clone(), &[b"http/1.1", ACME_TLS_ALPN], self.exchanges)
    }

    /// Who shows it.
    pub(crate) fn doorman(&self) -> Arc<Doorman> {
        self.doorman.clone()
    }

    /// Orders what is due, for ever.
    pub async fn keep_current(mut self) {
        let mut account = None;
        loop {
            let (now_unix, now) = (wall_unix(), Instant::now());
            let Some(due) = self.names.iter_mut().min_by_key(|name| name.next.wait(now_unix, now)) else {
                return std::future::pending().await;
            };
            let wait = due.next.wait(now_unix, now);
            if !wait.is_zero() {
                tokio::time::sleep(wait.min(LOOK_INTERVAL)).await;
                continue;
            }
            let obtained =
                obtain((&self.config, self.exchanges), &self.folder, &self.doorman, &mut account, &due.name).await;
            match obtained {
                Ok(certificate) => due.renew(&self.doorman, &self.folder, certificate).await,
                Err(failure) => {
                    if failure.is_unknown_account() {
                        account = None;
                    }
                    due.fail(&failure);
                }
            }
        }
    }
}

async fn obtain(
    (config, exchanges): (&AcmeConfig, KeyExchanges),
    folder: &Folder,
    doorman: &Doorman,
    account: &mut Option<Account>,
    name: &str,
) -> Result<WebCertificate, AcmeError> {
    let account = match account {
        Some(account) => account,
        None => {
            let keys = folder.clone();
            let key = tokio::task::spawn_blocking(move || keys.account_key()).await.expect("files do not panic")?;
            account.insert(account::open(config, &key, exchanges).await?)
        }
    };
    let issued = order(account, name, doorman).await?;
    Ok(WebCertificate::judge(issued, name, wall_unix())?)
}

impl Name {
    fn take(&mut self, doorman: &Doorman, certificate: &WebCertificate) {
        doorman.show(&self.name, certificate.certified.clone());
        let (from, until) = certificate.life;
        self.next = Next::At(pace::renewal_unix(from, until, chance::unit()));
        self.until = Some(until);
        self.failures = 0;
    }

    /// Shown even where the disk is full; then it is ordered once more after a restart.
    async fn renew(&mut self, doorman: &Doorman, folder: &Folder, certificate: WebCertificate) {
        self.take(doorman, &certificate);
        info!(name = self.name, until = utc(certificate.life.1), "certificate of the web issued");
        let (folder, name) = (folder.clone(), self.name.clone());
        let kept = tokio::task::spawn_blocking(move || folder.keep(&name, &certificate)).await;
        if let Err(failure) = kept.expect("files do not panic") {
            warn!(
                name = self.name,
                error = &failure as &dyn std::error::Error,
                "the certificate of the web is shown and cannot be kept"
            );
        }
    }

    fn fail(&mut self, failure: &AcmeError) {
        self.failures = self.failures.saturating_add(1);
        let pause = pace::pause(self.failures, failure.may_be_tried_soon(), chance::unit());
        self.next = Next::After(Instant::now() + pause);
        let (name, again_in_s, failure) = (&self.name, pause.as_secs(), failure as &dyn std::error::Error);
        match self.until.filter(|until| *until > wall_unix()) {
            Some(until) => warn!(
                name,
                until = utc(until),
                again_in_s,
                error = failure,
                "certificate of the web not renewed; the one from before is shown"
            ),
            None => error!(
                name,
                again_in_s,
                error = failure,
                "no certificate of the web: nobody who asks by this name is answered"
            ),
        }
    }
}
