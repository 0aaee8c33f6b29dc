//! The root's token at a ceremony.

use ironroot_hsm::{ModuleSurvey, Token, TokenConfig, TokenSurvey, TokenUri};
use ironroot_shell::command_line::CommandError;

use crate::cli::token_flags::NamedToken;

/// An open token, and what it says of itself.
pub(super) struct Opened {
    pub(super) named: NamedToken,
    pub(super) survey: ModuleSurvey,
    pub(super) slot: u64,
    pub(super) token: Token,
}

impl Opened {
    /// Logs in to the one token that is named, or the only one.
    pub(super) fn open(named: NamedToken) -> Result<Self, CommandError> {
        let survey = ModuleSurvey::of(&named.module_path).map_err(CommandError::run)?;
        let wanted = match &named.token {
            Some(token) => token.clone(),
            None => only_one(&survey)?,
        };
        let slot = ModuleSurvey::slot_of(&named.module_path, &wanted).map_err(CommandError::run)?;
        let no_pin = "a ceremony logs in: say where the PIN comes from (-pinFile, -pinCredential, -pinEnv, -pinpad)";
        let login = named.login.as_ref().ok_or_else(|| CommandError::Usage(no_pin.to_owned()))?;
        let login = login.read().map_err(CommandError::run)?;
        let config = TokenConfig { module_path: named.module_path.clone(), token: wanted, login, sessions: 1 };
        let token = Token::open(config).map_err(CommandError::run)?;
        Ok(Self { named, survey, slot, token })
    }

    /// What the token says of itself.
    pub(super) fn facts(&self) -> Option<(u64, &TokenSurvey)> {
        self.survey.tokens().find(|(slot, _)| *slot == self.slot)
    }
}

fn only_one(survey: &ModuleSurvey) -> Result<TokenUri, CommandError> {
    let mut tokens = survey.tokens();
    match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) => Ok(TokenUri::with_serial(&token.serial)),
        (None, _) => Err(CommandError::Usage("the module shows no token: plug the root's token in".to_owned())),
        _ => {
            Err(CommandError::Usage("the module shows several tokens: say with -token which is the root's".to_owned()))
        }
    }
}
