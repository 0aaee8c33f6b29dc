//! Our account at a CA, found or made by its key.

use instant_acme::{Account, Key};
use ironroot_api::tls::KeyExchanges;
use rcgen::KeyPair;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::courier::Courier;
use super::error::AcmeError;
use crate::config::AcmeConfig;
use ironroot_shell::web;

/// Finds the account of `key`, or makes it: the operator has accepted the CA's terms of service. The CA is told whom it may write to.
/// Source: RFC 8555 §7.3.1.
pub(super) async fn open(config: &AcmeConfig, key: &KeyPair, exchanges: KeyExchanges) -> Result<Account, AcmeError> {
    let reading = tokio::task::spawn_blocking(move || web::client_config(exchanges));
    let tls = reading.await.expect("reading authorities does not panic");
    let courier = Courier::new(tls.ok_or(AcmeError::NoWebAuthorities)?);
    let pkcs8 = PrivatePkcs8KeyDer::from(key.serialize_der());
    let pair = (Key::from_pkcs8_der(pkcs8.clone_key())?, PrivateKeyDer::Pkcs8(pkcs8));
    let url = config.directory_url.as_str().to_owned();
    // What comes back beside the account is the key once more.
    let (account, _) = Account::builder_with_http(Box::new(courier)).create_from_key(pair, url).await?;
    account.update_contacts(&[&format!("mailto:{}", config.email)]).await?;
    tracing::info!(directory_url = %config.directory_url, account = account.id(), "ACME account opened, terms of service accepted");
    Ok(account)
}
