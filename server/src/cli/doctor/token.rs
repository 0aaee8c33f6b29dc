//! The token and its PIN, as the server would use them.

use std::time::Duration;

use ironroot_hsm::{HsmError, Token, TokenConfig};
use ironroot_shell::command_line::describe;
use ironroot_shell::command_line::doctor::Findings;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::{LoginMode, Pkcs11Config};

/// How long a token may take to open. A network HSM takes a second or two.
const PATIENCE: Duration = Duration::from_secs(30);

/// Loads the module, finds the token, and logs in unless `no_login`: the token, if that went well.
pub(super) async fn look(findings: &mut Findings, about: &str, config: &Pkcs11Config, no_login: bool) -> Option<Token> {
    let pin = format!("PIN of the {about}");
    let login = match config.login.read() {
        Ok(login) => login,
        Err(error) => {
            findings.fault(pin, describe(&error), next_for_pin(&config.login));
            return None;
        }
    };
    if no_login {
        findings.doubtful(about, "not looked at: no PIN is sent (-noLogin)", "without -noLogin");
        return None;
    }
    // One session: a token may have few, and the server beside us has its own.
    let wanted =
        TokenConfig { module_path: config.module_path.clone(), token: config.token.clone(), login, sessions: 1 };
    let (told, opened) = oneshot::channel();
    // A thread of its own: a library that hangs must not hold up the command's end. Whoever has stopped waiting hears nothing.
    std::thread::spawn(move || drop(told.send(Token::open(wanted))));
    match timeout(PATIENCE, opened).await {
        Ok(Ok(Ok(token))) => {
            findings.good(about, format!("{} opens and takes the login", config.token));
            return Some(token);
        }
        Ok(Ok(Err(error))) => findings.fault(about, describe(&error), next(&error, config)),
        Ok(Err(_)) => findings.fault(about, "the PKCS#11 library failed in a way of its own", "the maker's log"),
        Err(_) => findings.fault(
            about,
            format!("it has not answered for {} s", PATIENCE.as_secs()),
            "the maker's log; the reader, the network to the HSM",
        ),
    }
    None
}

fn next_for_pin(login: &LoginMode) -> &'static str {
    match login {
        LoginMode::Pin(_) => "ls -l of the PIN's file: it is its owner's alone (chmod 600), who is the daemon's user",
        LoginMode::Pinpad | LoginMode::None => "",
    }
}

fn next(error: &HsmError, config: &Pkcs11Config) -> String {
    let module = config.module_path.display();
    match error {
        HsmError::Module { .. } => format!("ls -l {module}; dpkg -S {module}"),
        HsmError::PinRefused { .. } => {
            "correct the PIN before anything tries it again: tokens count wrong ones and lock themselves".to_owned()
        }
        HsmError::PinAtRisk { .. } => format!(
            "pkcs11-tool --module {module} --list-token-slots shows the flags; log in once by hand with the right PIN"
        ),
        _ => format!("pkcs11-tool --module {module} --list-token-slots, as the daemon's user"),
    }
}
