//! Opens the key managers: the one that keys are made in, and the one that the CA moves away from.

use std::error::Error;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use ironroot_hsm::{Token, TokenConfig, UserLogin};
use tokio::time::sleep;
use tracing::{error, warn};

use super::{RunError, blocking};
use crate::config::{KeyManagerConfig, KeyManagersConfig, LoginMode, Pkcs11Config};
use crate::keys::{FormerManager, KeyManager, KeyManagers, SoftwareKeys};

/// How often it is said that a module does not return.
const SAY_EVERY: Duration = Duration::from_secs(10);

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
    Ok(told_of_waiting(&config.module_path, blocking(move || Token::open(token))).await?)
}

/// Says now and then that the module keeps the server waiting: a call of it cannot be cut off.
async fn told_of_waiting<T>(module: &Path, opened: impl Future<Output = T>) -> T {
    let (began, mut opened) = (Instant::now(), pin!(opened));
    loop {
        tokio::select! {
            done = &mut opened => return done,
            () = sleep(SAY_EVERY) => warn!(
                module = %module.display(),
                seconds = began.elapsed().as_secs(),
                "waiting for the PKCS#11 module, which does not return (from C_Initialize, C_OpenSession or C_Login): check the HSM, its \
                 network and its client"
            ),
        }
    }
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
