//! By which certificate of the web's a listener proves who it is: one in files that somebody else renews, or one that the server has by ACME.

use std::path::Path;
use std::sync::Arc;

use ironroot_api::tls::{KeyExchanges, web_server_config};
use ironroot_shell::serving_certificate::ServingCertificate;
use rustls::ServerConfig;

use super::{RunError, blocking};
use crate::acme::Keeper;
use crate::config::WebCertificate;
use crate::web_shown::WebShown;

/// What is shown, and who keeps it current.
#[derive(Debug)]
pub(super) enum WebProof {
    Files(ServingCertificate),
    Acme(Box<Keeper>),
}

impl WebProof {
    /// Reads what there is. `folder`: where, below `data_dir`, what a CA issued is kept unless the configuration says where.
    pub(super) async fn load(
        certificate: WebCertificate,
        (data_dir, folder): (&Path, &str),
        exchanges: KeyExchanges,
    ) -> Result<Self, RunError> {
        match certificate {
            WebCertificate::Files(files) => Ok(Self::Files(blocking(move || ServingCertificate::load(files)).await?)),
            WebCertificate::Acme(acme) => {
                let base = acme.cache_dir.clone().unwrap_or_else(|| data_dir.join(folder));
                Ok(Self::Acme(Box::new(blocking(move || Keeper::open(acme, &base, exchanges)).await?)))
            }
        }
    }

    /// For a web server.
    pub(super) fn tls(&self, exchanges: KeyExchanges) -> Arc<ServerConfig> {
        match self {
            Self::Files(files) => web_server_config(files.resolver(), exchanges),
            Self::Acme(keeper) => keeper.tls(),
        }
    }

    /// Says what `listener` shows, whenever somebody asks.
    pub(super) fn shown(&self, listener: &'static str) -> WebShown {
        match self {
            Self::Files(files) => WebShown::of_file(listener, files.path().display().to_string(), files.resolver()),
            Self::Acme(keeper) => WebShown::of_names(listener, keeper.doorman()),
        }
    }

    /// For ever.
    pub(super) async fn keep_current(self) {
        match self {
            Self::Files(files) => files.keep_current().await,
            Self::Acme(keeper) => keeper.keep_current().await,
        }
    }
}
