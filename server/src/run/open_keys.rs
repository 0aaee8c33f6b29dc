//! Opens the key managers: the one that keys are made in, and the one that the CA moves away from.

use std::error::Error;

use ironroot_hsm::{Token, TokenConfig, UserLogin};
use tracing::{error, warn};

use super::{RunError, blocking};
use crate::config::{KeyManagerConfig, KeyManagersConfig, LoginMode, Pkcs11Config};
use crate::keys::{FormerManager, KeyManager, KeyManagers, SoftwareKeys};

/// Opens both. One that the CA moves away from need not be there any more, unless its key still signs: the CA finds out.
pub(super) async fn open_keys(config: &KeyManagersConfig) -> Result<KeyManagers, RunError> {
    let current = open(&config.current).await?;
    if current.is_software() {
        warn!(keys = %current, "the CA's private keys are not in hardware: whoever can read them can issue every identity");
    }
    let former = match &config.former {
        None => None,
        Some(former) => Some(match open(former).await {
            Ok(former) => FormerManager::AtHand(former),
            Err(unreachable) => {
                let why: &dyn Error = &unreachable;
                error!(error = why, "the key manager of before (previous = true) cannot be opened");
                FormerManager::Unreachable
            }
        }),
    };
    Ok(KeyManagers { current, former })
}

async fn open(config: &KeyManagerConfig) -> Result<KeyManager, RunError> {
    Ok(match config {
        KeyManagerConfig::Pkcs11(token) => KeyManager::Token(open_token(token).await?),
        KeyManagerConfig::Disk(path) => {
            let path = path.clone();
            KeyManager::Software(blocking(move || SoftwareKeys::open(&path)).await?)
        }
        KeyManagerConfig::Memory => KeyManager::Software(SoftwareKeys::in_memory()),
    })
}

async fn open_token(config: &Pkcs11Config) -> Result<Token, RunError> {
    let token = TokenConfig {
        module_path: config.module_path.clone(),
        token: config.token.clone(),
        login: config.login.read()?,
        sessions: config.sessions,
    };
    Ok(blocking(move || Token::open(token)).await?)
}

/// Has each token log in with the PIN that its configuration names now.
pub(super) async fn read_pins_again(logins: &[(Token, LoginMode)]) {
    for (token, login) in logins {
        let login = login.clone();
        match blocking(move || login.read()).await {
            Ok(UserLogin::Pin(pin)) => token.replace_pin(pin),
            Ok(UserLogin::Pinpad | UserLogin::None) => {}
            Err(error) => {
                error!(error = &error as &dyn Error, "the PIN could not be read again; the one from before stays")
            }
        }
    }
}

/// The tokens among them, and how to log in to each.
pub(super) fn logins(keys: &KeyManagers, config: &KeyManagersConfig) -> Vec<(Token, LoginMode)> {
    let former = keys.former().zip(config.former.as_ref());
    let both = [(&keys.current, &config.current)].into_iter().chain(former);
    both.filter_map(|(keys, config)| match keys {
        KeyManager::Token(token) => Some((token.clone(), config.login()?.clone())),
        KeyManager::Software(_) => None,
    })
    .collect()
}
