//! `hsm probe`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ironroot_hsm::{KeyKind, KeyTrial, ModuleSurvey, Token, TokenConfig, TokenUri, try_keys};
use ironroot_shell::command_line::{CommandError, Output, Reply, block_on, keep_files_private};

use super::needs::KINDS;
use super::report::Findings;
use crate::cli::token_flags::{NamedToken, TokenFlags};
use crate::config::{KeyManagerConfig, LoginMode, ServerConfig};

/// Says what a PKCS#11 token can do, which needs of this server it meets, and what to write into the configuration.
#[derive(Debug, Args)]
#[command(
    after_help = "Without a PIN the module is only asked; nobody logs in. With one a key of each kind is made on the token, found again, signed with and \
        destroyed; nothing stays. The PIN is sent once, and not at all while the token says that wrong ones were tried: no PIN is ever \
        locked by this. No server needs to run. RSA-4096 is tried with -slow: some tokens need a minute for it.

Examples:
  ironroot-server hsm probe -module /usr/lib/softhsm/libsofthsm2.so
  ironroot-server hsm probe -module /usr/lib/softhsm/libsofthsm2.so -token ironroot -pinFile /etc/ironroot/hsm.pin
  ironroot-server hsm probe -token 'pkcs11:serial=01ab?module-path=/usr/lib/p.so&pin-source=file:/etc/ironroot/hsm.pin'
  ironroot-server hsm probe -config /etc/ironroot/server.conf -output json"
)]
pub(in crate::cli) struct Probe {
    #[command(flatten)]
    token: TokenFlags,
    /// Takes module, token and PIN from this configuration's KeyManager "pkcs11"
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Also tries RSA-4096
    #[arg(long)]
    slow: bool,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
}

/// What is probed.
struct Subject {
    named: NamedToken,
    sessions: usize,
}

impl Probe {
    pub(super) fn execute(self) -> ExitCode {
        let output = self.output;
        keep_files_private();
        Reply::print(&self.probe(), output)
    }

    fn probe(self) -> Result<Reply, CommandError> {
        let (slow, subject) = (self.slow, self.subject()?);
        say(&format!("asking {}", subject.named.module_path.display()));
        let survey = ModuleSurvey::of(&subject.named.module_path).map_err(CommandError::run)?;
        let chosen = choose(&subject.named, &survey)?;
        let tried = match (&subject.named.login, &chosen) {
            (Some(login), Some((_, token))) => Some(attempt(&subject, login, token, slow)),
            (Some(_), None) => {
                let several = "there are several tokens, and a PIN belongs to one of them: say which with -token";
                return Err(CommandError::Usage(several.to_owned()));
            }
            (None, _) => None,
        };
        let (trials, refused) = match tried {
            Some(Ok(trials)) => (Some(trials), None),
            Some(Err(refused)) => (None, Some(refused)),
            None => (None, None),
        };
        let slot = chosen.map(|(slot, _)| slot);
        let NamedToken { module_path, login, .. } = subject.named;
        Ok(Findings { module_path, survey, slot, login, trials, refused }.reply())
    }

    fn subject(self) -> Result<Subject, CommandError> {
        match &self.config {
            Some(_) if self.token.are_given() => {
                let both = "-config names the token already: leave -module, -token and the PIN's flags out, or -config";
                Err(CommandError::Usage(both.to_owned()))
            }
            Some(path) => of_configuration(path),
            None => Ok(Subject { named: self.token.read()?, sessions: SESSIONS }),
        }
    }
}

/// Sessions that are asked for: as the server does by itself.
const SESSIONS: usize = 4;

fn of_configuration(path: &Path) -> Result<Subject, CommandError> {
    let config = ServerConfig::load(path, &[], false)?;
    let KeyManagerConfig::Pkcs11(token) = config.key_managers.current else {
        let other = "its KeyManager is no \"pkcs11\": there is no token in it to be asked; name one with -module";
        return Err(CommandError::Usage(format!("{}: {other}", path.display())));
    };
    let (module_path, sessions) = (token.module_path.clone(), token.sessions);
    let named = NamedToken { module_path, token: Some(token.token), login: Some(token.login) };
    Ok(Subject { named, sessions })
}

/// What is done now: a module that hangs is known by the last of these lines.
fn say(what: &str) {
    // Whoever has closed stderr does not want to know.
    let _ = writeln!(io::stderr(), "hsm probe: {what}");
}

/// The token that is meant, and what it is called exactly; none if there are several and nothing says which, or there is none at all.
fn choose(subject: &NamedToken, survey: &ModuleSurvey) -> Result<Option<(u64, TokenUri)>, CommandError> {
    if let Some(wanted) = &subject.token {
        let slot = ModuleSurvey::slot_of(&subject.module_path, wanted).map_err(CommandError::run)?;
        return Ok(Some((slot, wanted.clone())));
    }
    let mut tokens = survey.tokens();
    Ok(match (tokens.next(), tokens.next()) {
        (Some((slot, token)), None) => Some((slot, TokenUri::with_serial(&token.serial))),
        _ => None,
    })
}

fn attempt(
    subject: &Subject,
    login: &LoginMode,
    token: &TokenUri,
    slow: bool,
) -> Result<Vec<KeyTrial>, Box<dyn std::error::Error>> {
    let config = TokenConfig {
        module_path: subject.named.module_path.clone(),
        token: token.clone(),
        login: login.read()?,
        sessions: subject.sessions,
    };
    say(&format!("logging in to {token}"));
    let token = Token::open(config)?;
    let kinds: Vec<_> = KINDS.iter().map(|(kind, ..)| *kind).filter(|kind| slow || *kind != KeyKind::Rsa4096).collect();
    let name_of = |kind| KINDS.iter().find(|(known, ..)| *known == kind).map_or("", |(_, name, _)| name);
    let begins = |kind: KeyKind| say(&format!("trying a key of kind {}", name_of(kind)));
    let trials = block_on(async { try_keys(&token, &kinds, begins).await.map_err(CommandError::run) });
    Ok(trials?)
}
