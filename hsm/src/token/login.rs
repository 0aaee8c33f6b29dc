//! Finding the token's slot and logging in: once per epoch, for all sessions of the process.
//!
//! A login belongs to the token and the process, not to a session. It ends silently with the last session, so a spare one
//! is kept open for as long as the epoch lasts.

use std::sync::{MutexGuard, PoisonError};

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Limit, Slot, TokenInfo};

use tracing::warn;

use super::Shared;
use crate::error::{FailedCall, HsmError};
use crate::module::Entered;

/// One login. Sessions and object handles belong to the login they were made in: a key has new handles after the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    pub(super) epoch: u64,
    number: u64,
}

/// Who is logged in to the token, as far as this process is concerned.
#[derive(Default)]
pub(crate) struct LoginState {
    current: Option<Current>,
    logins: u64,
    /// The token has accepted this PIN before in this process.
    pin_accepted: bool,
}

struct Current {
    login: Login,
    slot: Slot,
    /// Never used; while it is open the login lasts.
    spare: Session,
}

impl Shared {
    /// Logs in for the first time; returns how many sessions the token allows beside the spare one.
    pub(super) fn first_login(&self) -> Result<usize, HsmError> {
        let entered = match self.module.enter() {
            Ok(entered) => entered,
            Err(error) => {
                if !self.module.renew(self.module.epoch()) {
                    return Err(error);
                }
                self.module.enter()?
            }
        };
        let (_, slot) = self.logged_in(&entered)?;
        let info = entered.pkcs11.get_token_info(slot)?;
        require_ecdsa(entered.pkcs11, slot, &info)?;
        Ok(match info.max_session_count() {
            Limit::Max(most) => usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(1).max(1),
            Limit::Unavailable | Limit::Infinite => usize::MAX,
        })
    }

    /// The login of this epoch; logs in if there is none.
    pub(super) fn login_of(&self, entered: &Entered<'_>) -> Result<Login, HsmError> {
        Ok(self.logged_in(entered)?.0)
    }

    /// A new session in this epoch, logged in. It is never closed by drop: after its epoch the number may be another's.
    pub(super) fn open_session(&self, entered: &Entered<'_>, writable: bool) -> Result<Session, HsmError> {
        let (_, slot) = self.logged_in(entered)?;
        Ok(match writable {
            true => entered.pkcs11.open_rw_session_no_drop(slot)?,
            false => entered.pkcs11.open_ro_session_no_drop(slot)?,
        })
    }

    /// Forgets this login, so that the next session checks it and logs in again. Another thread may have done so already.
    pub(super) fn forget_login(&self, login: Login) {
        let forgotten = self.login().current.take_if(|c| c.login == login);
        if let Some(current) = forgotten {
            self.close_in(current.login.epoch, current.spare);
        }
    }

    /// Closes a session of this epoch. One of an earlier epoch has ended with it; its number may be another's now.
    pub(super) fn close_in(&self, epoch: u64, session: Session) {
        if self.module.enter().is_ok_and(|entered| entered.epoch == epoch) {
            close(session);
        }
    }

    fn logged_in(&self, entered: &Entered<'_>) -> Result<(Login, Slot), HsmError> {
        let mut state = self.login();
        if let Some(current) = state.current.as_ref().filter(|c| c.login.epoch == entered.epoch) {
            return Ok((current.login, current.slot));
        }
        let slot = self.find_slot(entered.pkcs11)?;
        let spare = entered.pkcs11.open_ro_session_no_drop(slot)?;
        if !is_logged_in(&spare)? {
            let token = entered.pkcs11.get_token_info(slot)?;
            self.send_pin(&spare, &token, state.pin_accepted)?;
            state.pin_accepted = true;
        }
        state.logins += 1;
        let login = Login { epoch: entered.epoch, number: state.logins };
        state.current = Some(Current { login, slot, spare });
        Ok((login, slot))
    }

    fn send_pin(&self, session: &Session, token: &TokenInfo, accepted_before: bool) -> Result<(), HsmError> {
        let (label, pin) = (token.label().to_owned(), &self.config.pin);
        if self.module.has_refused(token.serial_number(), pin) {
            let state = "it refused this PIN before in this process";
            return Err(HsmError::PinAtRisk { token: label, state });
        }
        if let Some(state) = pin_risk(token, accepted_before) {
            return Err(HsmError::PinAtRisk { token: label, state });
        }
        match session.login(UserType::User, Some(&pin.to_auth_pin())) {
            Ok(()) | Err(CryptokiError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(error) => Err(match HsmError::from(error) {
                HsmError::Call(call) if is_about_the_pin(&call) => {
                    self.module.remember_refusal(token.serial_number(), pin);
                    HsmError::PinRefused { token: label, call }
                }
                other => other,
            }),
        }
    }

    fn find_slot(&self, pkcs11: &Pkcs11) -> Result<Slot, HsmError> {
        let mut present = Vec::new();
        let mut matching = Vec::new();
        for slot in pkcs11.get_slots_with_token()? {
            // A slot whose token was pulled in this moment is not there.
            let Ok(token) = pkcs11.get_token_info(slot) else { continue };
            if self.config.token.matches(slot.id(), &token) {
                matching.push(slot);
            } else if token.token_initialized() {
                present.push(format!("{:?} (serial {})", token.label(), token.serial_number()));
            }
        }
        let wanted = self.config.token.to_string();
        match matching[..] {
            [slot] => Ok(slot),
            [] if present.is_empty() => Err(HsmError::TokenAbsent { wanted, present: "none".to_owned() }),
            [] => Err(HsmError::TokenAbsent { wanted, present: present.join(", ") }),
            _ => Err(HsmError::TokenAmbiguous { wanted, count: matching.len() }),
        }
    }

    fn login(&self) -> MutexGuard<'_, LoginState> {
        self.login.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last session of the token closes its spare one too, which logs out.
impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(current) = self.login().current.take() {
            self.close_in(current.login.epoch, current.spare);
        }
    }
}

/// Closes a session of the current epoch.
pub(super) fn close(session: Session) {
    if let Err(error) = session.close() {
        warn!(error = %HsmError::from(error), "session could not be closed");
    }
}

/// Whether this session sees private objects.
pub(crate) fn is_logged_in(session: &Session) -> Result<bool, HsmError> {
    let state = session.get_session_info()?.session_state();
    Ok(matches!(state, SessionState::RoUser | SessionState::RwUser))
}

/// Why the PIN should not be sent now. A PIN that was accepted before is known to be right, so one wrong try by somebody
/// else does not hold it back.
fn pin_risk(token: &TokenInfo, accepted_before: bool) -> Option<&'static str> {
    if token.user_pin_locked() {
        Some("it is locked")
    } else if token.user_pin_to_be_changed() {
        Some("it must be changed first")
    } else if token.user_pin_final_try() {
        Some("one more wrong PIN would lock it")
    } else if token.user_pin_count_low() && !accepted_before {
        Some("a wrong PIN was tried since the last login")
    } else {
        None
    }
}

fn is_about_the_pin(call: &FailedCall) -> bool {
    use RvError as R;
    matches!(
        call.code(),
        Some(
            R::PinIncorrect | R::PinInvalid | R::PinLenRange | R::PinLocked | R::PinExpired | R::UserPinNotInitialized
        )
    )
}

fn require_ecdsa(pkcs11: &Pkcs11, slot: Slot, token: &TokenInfo) -> Result<(), HsmError> {
    if pkcs11.get_mechanism_list(slot)?.contains(&MechanismType::ECDSA) {
        return Ok(());
    }
    Err(HsmError::MechanismMissing { token: token.label().to_owned(), mechanism: "CKM_ECDSA" })
}
