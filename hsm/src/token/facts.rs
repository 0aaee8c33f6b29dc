//! What a token says of itself, and what follows from it: which slot is meant, and how to log in.

use cryptoki::slot::{Limit, TokenInfo};

use super::user_login::UserLogin;
use crate::error::HsmError;
use crate::uri::{TokenNames, TokenUri, without_padding};

/// What a token says of itself, as far as something is decided by it. Names without their padding: blanks by the standard,
/// NUL by some tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenFacts {
    pub(crate) label: String,
    pub(crate) serial: String,
    pub(crate) manufacturer: String,
    pub(crate) model: String,
    pub(crate) initialized: bool,
    pub(crate) login_required: bool,
    /// The PIN is given at the token itself: a pad, a reader, another card.
    pub(crate) protected_path: bool,
    pub(crate) pin: PinState,
    /// Sessions that the token allows at once, if it says so.
    pub(crate) max_sessions: Option<u64>,
}

/// What the token says of the user PIN, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PinState {
    Locked,
    ToBeChanged,
    FinalTry,
    CountLow,
    Good,
}

/// A slot, and its token as far as it could be read.
pub(crate) struct SeenSlot {
    pub(crate) id: u64,
    pub(crate) token: Result<TokenFacts, Unread>,
}

/// Why a token's information is not known.
pub(crate) struct Unread {
    /// In words, for the log and for errors.
    pub(crate) reason: String,
    /// The token answered; what it answered is not what the standard allows.
    pub(crate) answered: bool,
}

/// The slot that is meant, and its token's facts if they can be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) slot_id: u64,
    pub(crate) token: Option<TokenFacts>,
}

/// What to do to be logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoginStep {
    SendPin,
    AskAtToken,
    Nothing,
}

impl From<&TokenInfo> for TokenFacts {
    fn from(info: &TokenInfo) -> Self {
        let name = |padded: &str| without_padding(padded).to_owned();
        Self {
            label: name(info.label()),
            serial: name(info.serial_number()),
            manufacturer: name(info.manufacturer_id()),
            model: name(info.model()),
            initialized: info.token_initialized(),
            login_required: info.login_required(),
            protected_path: info.protected_authentication_path(),
            pin: PinState::of(info),
            max_sessions: match info.max_session_count() {
                Limit::Max(most) => Some(most),
                Limit::Unavailable | Limit::Infinite => None,
            },
        }
    }
}

impl TokenFacts {
    fn names(&self) -> TokenNames<'_> {
        let Self { label, serial, manufacturer, model, .. } = self;
        TokenNames { label, serial, manufacturer, model }
    }
}

impl PinState {
    /// The worst of what it says.
    pub(crate) fn of(info: &TokenInfo) -> Self {
        if info.user_pin_locked() {
            Self::Locked
        } else if info.user_pin_to_be_changed() {
            Self::ToBeChanged
        } else if info.user_pin_final_try() {
            Self::FinalTry
        } else if info.user_pin_count_low() {
            Self::CountLow
        } else {
            Self::Good
        }
    }

    /// What to do before it is sent again.
    fn what_helps(self) -> &'static str {
        match self {
            Self::Locked => {
                "no PIN opens it: have the security officer set the user PIN anew (pkcs11-tool --login --login-type so --init-pin)"
            }
            Self::ToBeChanged => {
                "change it with the token's own tool (pkcs11-tool --login --change-pin), and give the server the new one"
            }
            Self::FinalTry | Self::CountLow | Self::Good => LOG_IN_BY_HAND,
        }
    }

    /// Why the PIN should not be sent now. One that was accepted before is known to be right, so one wrong try by somebody
    /// else does not hold it back.
    fn risk(self, accepted_before: bool) -> Option<&'static str> {
        match self {
            Self::Locked => Some("it is locked"),
            Self::ToBeChanged => Some("it must be changed first"),
            Self::FinalTry => Some("one more wrong PIN would lock it"),
            Self::CountLow if !accepted_before => Some("a wrong PIN was tried since the last login"),
            Self::CountLow | Self::Good => None,
        }
    }
}

/// The one slot that `wanted` names.
pub(crate) fn choose(wanted: &TokenUri, slots: &[SeenSlot]) -> Result<Chosen, HsmError> {
    let matching: Vec<&SeenSlot> = slots.iter().filter(|slot| is_meant(wanted, slot)).collect();
    match matching[..] {
        // Some never say that they are initialised; a blank one has no label either.
        [SeenSlot { id, token: Ok(TokenFacts { initialized: false, label, .. }) }] if label.is_empty() => {
            Err(HsmError::TokenBlank { wanted: wanted.to_string(), slot: *id })
        }
        [slot] => Ok(Chosen { slot_id: slot.id, token: slot.token.as_ref().ok().cloned() }),
        [] => {
            let present: Vec<String> = slots.iter().filter_map(describe).collect();
            let present = if present.is_empty() { "none".to_owned() } else { present.join(", ") };
            Err(HsmError::TokenAbsent { wanted: wanted.to_string(), present })
        }
        _ => {
            let which: Vec<String> = matching.iter().filter_map(|slot| describe(slot)).collect();
            let (count, which) = (matching.len(), which.join(", "));
            Err(HsmError::TokenAmbiguous { wanted: wanted.to_string(), count, which })
        }
    }
}

fn is_meant(wanted: &TokenUri, slot: &SeenSlot) -> bool {
    match &slot.token {
        Ok(token) => wanted.matches(slot.id, token.names()),
        // Nothing else is known of it, so nothing else may be asked of it.
        Err(unread) => unread.answered && wanted.names_only_slot(slot.id),
    }
}

fn describe(slot: &SeenSlot) -> Option<String> {
    match &slot.token {
        Ok(token) if token.initialized => Some(format!("{:?} (serial {})", token.label, token.serial)),
        Ok(_) => None,
        Err(unread) => Some(format!(
            "slot {}, whose token information cannot be read: {} (it can be named by token_uri = \"pkcs11:slot-id={}\")",
            slot.id, unread.reason, slot.id
        )),
    }
}

/// What to do to be logged in as `login` says. A token that asks for no PIN gets none: it could count it as a wrong one.
///
/// `token`: what it says of itself, if that can be read; `accepted_before`: it took this PIN before in this process.
pub(super) fn login_step(
    login: &UserLogin,
    token: Option<&TokenFacts>,
    accepted_before: bool,
) -> Result<LoginStep, HsmError> {
    let step = match login {
        UserLogin::Pin(_) => LoginStep::SendPin,
        UserLogin::Pinpad => LoginStep::AskAtToken,
        UserLogin::None => LoginStep::Nothing,
    };
    let Some(token) = token else { return Ok(step) };
    let wrong = |says, right| Err(HsmError::LoginMode { token: token.label.clone(), says, right });
    match step {
        LoginStep::Nothing if !token.login_required => Ok(step),
        LoginStep::Nothing if token.protected_path => wrong(PAD, "pinpad"),
        LoginStep::Nothing => wrong("needs a login (CKF_LOGIN_REQUIRED)", "pin"),
        _ if !token.login_required => wrong("needs no login (CKF_LOGIN_REQUIRED is clear)", "none"),
        LoginStep::SendPin if token.protected_path => wrong(PAD, "pinpad"),
        LoginStep::AskAtToken if !token.protected_path => {
            wrong("has no pad or reader of its own (CKF_PROTECTED_AUTHENTICATION_PATH is clear)", "pin")
        }
        _ => match token.pin.risk(accepted_before) {
            //= FLT-H2 token faults: "none is sent"
            Some(state) => {
                let (token, helps) = (token.label.clone(), token.pin.what_helps());
                Err(HsmError::PinAtRisk { token, state, helps })
            }
            None => Ok(step),
        },
    }
}

/// What shows a token that there is a right PIN.
pub(super) const LOG_IN_BY_HAND: &str = "log in once by hand with the right PIN (pkcs11-tool --login --list-objects), or have the security officer reset it";
const PAD: &str = "takes the PIN at its own pad or reader (CKF_PROTECTED_AUTHENTICATION_PATH)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::Pin;

    fn token(label: &str, serial: &str) -> TokenFacts {
        TokenFacts {
            label: label.to_owned(),
            serial: serial.to_owned(),
            manufacturer: "maker".to_owned(),
            model: "model".to_owned(),
            initialized: true,
            login_required: true,
            protected_path: false,
            pin: PinState::Good,
            max_sessions: None,
        }
    }

    fn slot(id: u64, label: &str) -> SeenSlot {
        SeenSlot { id, token: Ok(token(label, "1")) }
    }

    fn unread(id: u64, answered: bool) -> SeenSlot {
        SeenSlot { id, token: Err(Unread { reason: "why".to_owned(), answered }) }
    }

    fn chosen(uri: &str, slots: &[SeenSlot]) -> Result<u64, String> {
        let uri = TokenUri::parse(uri).unwrap();
        choose(&uri, slots).map(|chosen| chosen.slot_id).map_err(|error| error.to_string())
    }

    #[test]
    fn padding_is_no_part_of_a_name() {
        for (padded, name) in [("ca\0\0\0", "ca"), ("ca   ", "ca"), ("ca \0 \0", "ca"), (" c a", " c a"), ("\0", "")] {
            assert_eq!(without_padding(padded), name);
        }
        assert_eq!(chosen("pkcs11:token=ca%20%20", &[slot(7, "ca")]), Ok(7));
        assert_eq!(chosen("pkcs11:token=ca%00", &[slot(7, "ca")]), Ok(7));
    }

    #[test]
    fn a_slot_that_cannot_be_read_is_named_and_can_be_chosen_by_its_number() {
        let slots = [slot(1, "one"), unread(5, true), unread(6, false)];
        assert_eq!(chosen("pkcs11:token=one", &slots), Ok(1));
        assert_eq!(chosen("pkcs11:slot-id=5", &slots), Ok(5));
        let text = chosen("pkcs11:token=other", &slots).unwrap_err();
        assert!(text.contains("\"one\" (serial 1), slot 5, whose token information cannot be read: why"), "{text}");
        // What cannot be compared does not match, and a token that is gone is gone.
        assert!(chosen("pkcs11:slot-id=5;token=one", &slots).is_err());
        assert!(chosen("pkcs11:slot-id=6", &slots).is_err());
        assert!(chosen("pkcs11:token=x", &[]).unwrap_err().contains("tokens present: none"));
        let blank = SeenSlot { id: 2, token: Ok(TokenFacts { initialized: false, ..token("", "") }) };
        assert!(chosen("pkcs11:slot-id=2", std::slice::from_ref(&blank)).unwrap_err().contains("initialise it first"));
        assert!(chosen("pkcs11:token=x", &[blank]).unwrap_err().contains("tokens present: none"));
        let twins = [slot(1, "one"), SeenSlot { id: 2, token: Ok(token("one", "2")) }];
        let text = chosen("pkcs11:token=one", &twins).unwrap_err();
        assert!(text.contains("2 tokens match") && text.contains("\"one\" (serial 1), \"one\" (serial 2)"), "{text}");
    }

    #[test]
    fn a_token_that_asks_for_no_pin_is_sent_none() {
        let pin = || UserLogin::Pin(Pin::parse(b"1234", "test").unwrap());
        for (login, required, pad, expected) in [
            (pin(), true, false, Ok(LoginStep::SendPin)),
            (pin(), true, true, Err("pinpad")),
            (pin(), false, false, Err("none")),
            (pin(), false, true, Err("none")),
            (UserLogin::Pinpad, true, true, Ok(LoginStep::AskAtToken)),
            (UserLogin::Pinpad, true, false, Err("pin")),
            (UserLogin::Pinpad, false, true, Err("none")),
            (UserLogin::None, false, false, Ok(LoginStep::Nothing)),
            (UserLogin::None, false, true, Ok(LoginStep::Nothing)),
            (UserLogin::None, true, false, Err("pin")),
            (UserLogin::None, true, true, Err("pinpad")),
        ] {
            let facts = TokenFacts { login_required: required, protected_path: pad, ..token("t", "1") };
            let step = login_step(&login, Some(&facts), false).map_err(|error| match error {
                HsmError::LoginMode { right, .. } => right,
                other => panic!("{other}"),
            });
            assert_eq!(step, expected, "{login:?}, login required: {required}, pad: {pad}");
        }
        // Of a token that cannot be read nothing else is known than what the operator says.
        assert_eq!(login_step(&pin(), None, false).unwrap(), LoginStep::SendPin);
        assert_eq!(login_step(&UserLogin::None, None, false).unwrap(), LoginStep::Nothing);
    }

    #[test]
    fn of_a_pin_at_risk_it_is_said_what_helps_in_that_state() {
        for (state, helps) in [
            (PinState::Locked, "have the security officer set the user PIN anew"),
            (PinState::ToBeChanged, "change it with the token's own tool"),
            (PinState::FinalTry, "log in once by hand"),
            (PinState::CountLow, "log in once by hand"),
        ] {
            let facts = TokenFacts { pin: state, protected_path: true, ..token("t", "1") };
            let text = login_step(&UserLogin::Pinpad, Some(&facts), false).unwrap_err().to_string();
            assert!(text.contains(helps), "{text}");
        }
    }

    //= FLT-H2
    #[test]
    fn a_pin_at_risk_is_not_sent() {
        for (state, first, again) in [
            (PinState::Good, true, true),
            (PinState::CountLow, false, true),
            (PinState::FinalTry, false, false),
            (PinState::ToBeChanged, false, false),
            (PinState::Locked, false, false),
        ] {
            for (accepted_before, sent) in [(false, first), (true, again)] {
                let facts = TokenFacts { pin: state, protected_path: true, ..token("t", "1") };
                assert_eq!(login_step(&UserLogin::Pinpad, Some(&facts), accepted_before).is_ok(), sent, "{state:?}");
            }
        }
    }
}
