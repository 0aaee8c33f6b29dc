//! Flags that name a PKCS#11 token and where its PIN comes from, for commands that need no running server.

use std::path::{Path, PathBuf};

use clap::Args;
use ironroot_hsm::TokenUri;
use ironroot_shell::command_line::CommandError;

use crate::config::{LoginMode, PinSource};

/// Which token, and its PIN.
#[derive(Debug, Args)]
pub(super) struct TokenFlags {
    /// The token maker's library
    #[arg(long, value_name = "PATH")]
    module: Option<PathBuf>,
    /// Which of its tokens: a label, or a URI of RFC 7512, which may name the library and the PIN file too
    #[arg(long, value_name = "LABEL|URI")]
    token: Option<String>,
    /// File with the PIN, which nobody else can read
    #[arg(long = "pinFile", value_name = "PATH", conflicts_with_all = ["pin_credential", "pin_env", "pinpad"])]
    pin_file: Option<PathBuf>,
    /// Name of the systemd credential with the PIN
    #[arg(long = "pinCredential", value_name = "NAME", conflicts_with_all = ["pin_env", "pinpad"])]
    pin_credential: Option<String>,
    /// Name of the environment variable with the PIN
    #[arg(long = "pinEnv", value_name = "NAME", conflicts_with = "pinpad")]
    pin_env: Option<String>,
    /// The token asks for the PIN at its own pad or reader
    #[arg(long)]
    pinpad: bool,
}

/// What they name.
#[derive(Clone, Debug)]
pub(super) struct NamedToken {
    pub(super) module_path: PathBuf,
    /// None: the only one that there is.
    pub(super) token: Option<TokenUri>,
    /// How to log in, if that is said.
    pub(super) login: Option<LoginMode>,
}

impl TokenFlags {
    /// Whether any was given.
    pub(super) fn are_given(&self) -> bool {
        let pins = [self.pin_credential.is_some(), self.pin_env.is_some(), self.pin_file.is_some(), self.pinpad];
        self.module.is_some() || self.token.is_some() || pins.contains(&true)
    }

    /// The library from the flag or the URI, the PIN likewise.
    pub(super) fn read(self) -> Result<NamedToken, CommandError> {
        let token = self.token.as_deref().map(parse_token).transpose()?;
        let module_path = self.module.or_else(|| token.as_ref()?.module_path().map(Path::to_owned));
        let module_path = module_path.ok_or_else(|| CommandError::Usage(NO_MODULE.to_owned()))?;
        let in_uri = token.as_ref().and_then(TokenUri::pin_source).map(|path| PinSource::File(path.to_owned()));
        let file = self.pin_file.map(PinSource::File);
        let pin = file.or(self.pin_credential.map(PinSource::Credential)).or(self.pin_env.map(PinSource::Environment));
        let login = match (self.pinpad, pin.or(in_uri)) {
            (true, _) => Some(LoginMode::Pinpad),
            (false, pin) => pin.map(LoginMode::Pin),
        };
        Ok(NamedToken { module_path, token, login })
    }
}

const NO_MODULE: &str =
    "name the token maker's library: -module /usr/lib/softhsm/libsofthsm2.so, or module-path in -token's URI";

fn parse_token(text: &str) -> Result<TokenUri, CommandError> {
    match text.starts_with("pkcs11:") {
        true => {
            TokenUri::parse(text).map_err(|error| CommandError::Usage(format!("-token is no URI of a token: {error}")))
        }
        false => Ok(TokenUri::with_label(text)),
    }
}
