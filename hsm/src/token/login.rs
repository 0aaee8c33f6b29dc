//! Finding the token's slot and logging in: once per epoch, for all sessions of the process.
//!
//! A login belongs to the token and the process, not to a session. It ends silently with the last session, so the shared one
//! is kept open for as long as the epoch lasts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use tracing::warn;

use super::facts::{Chosen, LOG_IN_BY_HAND, LoginStep, SeenSlot, TokenFacts, Unread, choose, login_step};
use super::sessions::{SharedSession, close, open_shared};
use super::user_login::UserLogin;
use crate::error::{FailedCall, HsmError};
use crate::login::{Login, is_logged_in};
use crate::module::{Entered, Module};
use crate::pin::Pin;
use crate::uri::TokenUri;

/// Finds the token and keeps this process logged in to it.
pub(super) struct Logins {
    module: Arc<Module>,
    token: TokenUri,
    login: UserLogin,
    state: Mutex<LoginState>,
}

/// Who is logged in to the token, as far as this process is concerned.
#[derive(Default)]
struct LoginState {
    current: Option<Current>,
    logins: u64,
    /// The token has accepted this PIN before in this process.
    pin_accepted: bool,
    /// The PIN as somebody has changed it since the start.
    replaced_pin: Option<Pin>,
}

/// A login and what goes with it.
#[derive(Clone)]
pub(super) struct Current {
    pub(super) login: Login,
    pub(super) slot: Slot,
    pub(super) shared: Arc<SharedSession>,
}

/// What the token can do, read once.
pub(super) struct Abilities {
    /// Sessions that the token allows at once, if it says so.
    pub(super) max_sessions: Option<u64>,
    /// Whether it lists a way to make keys.
    pub(super) makes_keys: bool,
    /// Whether the shared session can write.
    pub(super) is_writable: bool,
}

impl Logins {
    /// None has been made yet.
    pub(super) fn new(module: Arc<Module>, token: TokenUri, login: UserLogin) -> Self {
        Self { module, token, login, state: Mutex::default() }
    }

    /// The token that is meant.
    pub(super) fn token(&self) -> &TokenUri {
        &self.token
    }

    /// The configured way to log in, its PIN included; a PIN in it is printed nowhere.
    pub(super) fn user_login(&self) -> &UserLogin {
        &self.login
    }

    /// Logs in for the first time.
    pub(super) fn first_login(&self) -> Result<Abilities, HsmError> {
        let entered = match self.module.enter() {
            Ok(entered) => entered,
            Err(error) => {
                if !self.module.renew(self.module.epoch()) {
                    return Err(error);
                }
                self.module.enter()?
            }
        };
        let (entered, current) = match self.logged_in(&entered) {
            Ok(current) => (entered, current),
            // A module may look for tokens only when it starts: the token may have come since.
            Err(error @ HsmError::TokenAbsent { .. }) => {
                let epoch = entered.epoch;
                drop(entered);
                if !self.module.renew(epoch) {
                    return Err(error);
                }
                let entered = self.module.enter()?;
                let current = self.logged_in(&entered)?;
                (entered, current)
            }
            Err(error) => return Err(error),
        };
        let mechanisms = entered.pkcs11.get_mechanism_list(current.slot)?;
        if !mechanisms.contains(&MechanismType::ECDSA) {
            return Err(HsmError::MechanismMissing { token: self.token.to_string(), mechanism: "CKM_ECDSA" });
        }
        Ok(Abilities {
            max_sessions: read_token(entered.pkcs11, current.slot).ok().and_then(|token| token.max_sessions),
            makes_keys: mechanisms.contains(&MechanismType::ECC_KEY_PAIR_GEN),
            is_writable: current.shared.is_writable(),
        })
    }

    /// The next login is with `pin`. One that is the same as before changes nothing: a refused PIN is not sent again.
    pub(super) fn replace_pin(&self, pin: Pin) {
        let mut state = self.state();
        if state.replaced_pin.as_ref().or(self.login.pin()) != Some(&pin) {
            state.pin_accepted = false;
            state.replaced_pin = Some(pin);
        }
    }

    /// The login of this epoch; logs in if there is none.
    pub(super) fn logged_in(&self, entered: &Entered<'_>) -> Result<Current, HsmError> {
        let mut state = self.state();
        if let Some(current) = state.current.as_ref().filter(|c| c.login.epoch == entered.epoch) {
            return Ok(current.clone());
        }
        let Chosen { slot_id, token } = choose(&self.token, &see_slots(entered.pkcs11)?)?;
        let slot = Slot::try_from(slot_id)?;
        let open = open_shared(entered.pkcs11, slot)?;
        if let Err(error) = self.log_in(&open.session, slot, token.as_ref(), &mut state) {
            close(open.session);
            if matches!(error, HsmError::PinRefused { .. } | HsmError::PinAtRisk { .. }) {
                Module::note_pin_in_doubt();
            }
            return Err(error);
        }
        state.logins += 1;
        let is_needed = !matches!(self.login, UserLogin::None);
        let login = Login { epoch: entered.epoch, number: state.logins, is_needed };
        let current = Current { login, slot, shared: Arc::new(SharedSession::new(slot, open)) };
        state.current = Some(current.clone());
        Ok(current)
    }

    /// Forgets this login, so that the next session checks it and logs in again. Another thread may have done so already.
    pub(super) fn forget_login(&self, login: Login) {
        let forgotten = self.state().current.take_if(|c| c.login == login);
        if let Some(current) = forgotten {
            self.close_shared(&current);
        }
    }

    /// Closes a session of this epoch. One of an earlier epoch has ended with it; its number may be another's now.
    pub(super) fn close_in(&self, epoch: u64, session: Session) {
        if self.module.enter().is_ok_and(|entered| entered.epoch == epoch) {
            close(session);
        }
    }

    fn close_shared(&self, current: &Current) {
        if let Some(session) = current.shared.take() {
            self.close_in(current.login.epoch, session);
        }
    }

    fn log_in(
        &self,
        session: &Session,
        slot: Slot,
        token: Option<&TokenFacts>,
        state: &mut LoginState,
    ) -> Result<(), HsmError> {
        let step = match login_step(&self.login, token, state.pin_accepted) {
            // What is logged in already needs no PIN, whatever risk it would be at.
            Err(HsmError::PinAtRisk { .. }) if is_logged_in(session)? => return Ok(()),
            step => step?,
        };
        if step == LoginStep::Nothing || is_logged_in(session)? {
            return Ok(());
        }
        if token.is_none() {
            warn!(slot = slot.id(), "the token's information cannot be read: whether its PIN is at risk is not known");
        }
        self.give_pin(session, slot, token, state)?;
        state.pin_accepted = true;
        Ok(())
    }

    /// Sends the PIN, or has the token ask for it; once only if it is wrong.
    fn give_pin(
        &self,
        session: &Session,
        slot: Slot,
        token: Option<&TokenFacts>,
        state: &LoginState,
    ) -> Result<(), HsmError> {
        let label = token.map_or_else(|| format!("in slot {slot}"), |token| format!("{:?}", token.label));
        let serial = token.map_or_else(|| format!("slot {slot}"), |token| token.serial.clone());
        let pin = self.login.pin().map(|pin| state.replaced_pin.as_ref().unwrap_or(pin));
        if self.module.has_refused(&serial, pin) {
            let state = "it refused this PIN before in this process";
            return Err(HsmError::PinAtRisk { token: label, state, helps: LOG_IN_BY_HAND });
        }
        let auth_pin = pin.map(crate::pin::Pin::to_auth_pin);
        match session.login(UserType::User, auth_pin.as_ref()) {
            Ok(()) | Err(CryptokiError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(error) => Err(match HsmError::from(error) {
                HsmError::Call(call) if is_a_refusal(&call, state.pin_accepted) => {
                    self.module.remember_refusal(&serial, pin);
                    HsmError::PinRefused { token: label, call }
                }
                other => other,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, LoginState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last session of the token closes its shared one too, which logs out.
impl Drop for Logins {
    fn drop(&mut self) {
        let current = self.state().current.take();
        if let Some(current) = current {
            self.close_shared(&current);
        }
    }
}

/// Whether the token still answers. Some modules go on with empty lists when their token is gone; its information is then
/// gone too. One that answers what cannot be parsed is there.
pub(super) fn answers(pkcs11: &Pkcs11, slot: Slot) -> Result<(), HsmError> {
    match pkcs11.get_token_info(slot) {
        Err(error @ CryptokiError::Pkcs11(..)) => Err(error.into()),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Every slot that has a token, and what that says of itself.
pub(crate) fn see_slots(pkcs11: &Pkcs11) -> Result<Vec<SeenSlot>, HsmError> {
    let slots = pkcs11.get_slots_with_token()?;
    Ok(slots.into_iter().map(|slot| SeenSlot { id: slot.id(), token: read_token(pkcs11, slot) }).collect())
}

/// What the token in a slot says of itself.
pub(crate) fn read_token(pkcs11: &Pkcs11, slot: Slot) -> Result<TokenFacts, Unread> {
    let info = pkcs11.get_token_info(slot).map_err(|error| match error {
        // Seen: utcTime "21:45:33" from opencryptoki 3.8, where the standard has YYYYMMDDhhmmss00.
        CryptokiError::ParseInt(_) | CryptokiError::Utf8(_) => {
            Unread { reason: "its clock's time is not in the form of the standard".to_owned(), answered: true }
        }
        CryptokiError::Pkcs11(..) => Unread { reason: HsmError::from(error).to_string(), answered: false },
        other => Unread { reason: other.to_string(), answered: true },
    })?;
    Ok(TokenFacts::from(&info))
}

/// Whether the token has judged the PIN. A lock says nothing of one that was right before: somebody else has locked it, and
/// when it is unlocked (by the security officer, by time in a TPM) it is right again.
fn is_a_refusal(call: &FailedCall, accepted_before: bool) -> bool {
    use RvError as R;
    match call.code() {
        Some(R::PinIncorrect | R::PinInvalid | R::PinLenRange | R::PinExpired | R::UserPinNotInitialized) => true,
        Some(R::PinLocked) => !accepted_before,
        _ => false,
    }
}
