//! The shared library: loaded once per process, initialised in epochs.
//!
//! C_Initialize and C_Finalize act on the whole process, so the list of loaded modules is process-wide too: this is the
//! one place that mirrors that state. An epoch lasts from C_Initialize to C_Finalize; sessions, logins and object handles
//! belong to the epoch they were made in.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as CryptokiError, RvError};
use tracing::{debug, info, warn};

use crate::error::HsmError;
use crate::pin::Pin;

/// Shortest time between two attempts to start a new epoch. A token that is away costs one attempt per period, however
/// many requests ask for it.
const RENEWAL_PERIOD: Duration = Duration::from_millis(500);

/// For a key that is gone a new epoch begins at once, then after this time, and then after ever longer ones.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// No longer than this: a module that sees a restored key only when it starts sees it then.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Whoever was not asked for a key that is gone for so long begins anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2 * 60);

/// A token has refused a PIN in this process, or says that one more that is wrong would be one too many.
static PIN_WAS_REFUSED: AtomicBool = AtomicBool::new(false);

/// Whether a token has refused a PIN of this process, or was sent none because of those that were refused before: to start again makes
/// that worse.
pub fn pin_was_refused() -> bool {
    PIN_WAS_REFUSED.load(Ordering::Relaxed)
}

/// Whether a token of the module at this path is open in this process. It is not started anew then, and some see what was plugged in
/// since only when they start.
pub fn is_in_use(module_path: &Path) -> bool {
    let Ok(real) = module_path.canonicalize() else { return false };
    let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    loaded.iter().any(|module| module.path == real && Arc::strong_count(module) > 1)
}

/// Modules stay loaded and initialised until the process ends: other threads of the process may be inside them.
static LOADED: Mutex<Vec<Arc<Module>>> = Mutex::new(Vec::new());

/// One PKCS#11 library of this process.
pub(crate) struct Module {
    path: PathBuf,
    pkcs11: Pkcs11,
    state: RwLock<State>,
    /// Serial numbers of tokens, and the PIN that each refused: none if it was given at the token itself.
    refused: Mutex<Vec<(String, Option<Pin>)>>,
    lost_keys: Mutex<LostKeys>,
}

/// When a new epoch was begun for a key that is gone: nobody else's sessions are to end for it all the time.
#[derive(Default)]
struct LostKeys {
    begun_at: Option<Instant>,
    pause: Duration,
}

impl LostKeys {
    /// Whether another may begin now; it does then.
    fn may_begin(&mut self, now: Instant) -> bool {
        self.pause = match self.begun_at.map(|begun_at| now.saturating_duration_since(begun_at)) {
            Some(since) if since < self.pause => return false,
            Some(since) if since < FORGOTTEN_AFTER => (self.pause * 2).min(LONGEST_PAUSE),
            Some(_) | None => FIRST_PAUSE,
        };
        self.begun_at = Some(now);
        true
    }
}

struct State {
    epoch: u64,
    /// Why the library is not initialised, if it is not.
    failure: Option<HsmError>,
    renewed_at: Option<Instant>,
}

/// Leave to call the library within one epoch; while it is held, no new epoch can begin.
pub(crate) struct Entered<'a> {
    pub(crate) pkcs11: &'a Pkcs11,
    pub(crate) epoch: u64,
    _state: RwLockReadGuard<'a, State>,
}

impl Module {
    /// The module at `path`, loaded and initialised if this process has not done so yet.
    pub(crate) fn load(path: &Path) -> Result<Arc<Self>, HsmError> {
        let failed = |reason: String| HsmError::Module { path: path.to_owned(), reason };
        let real = path.canonicalize().map_err(|e| failed(e.to_string()))?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.iter().find(|m| m.path == real) {
            return Ok(Arc::clone(module));
        }
        let pkcs11 = Pkcs11::new(&real).map_err(|e| failed(e.to_string()))?;
        initialize(&pkcs11)?;
        let state = RwLock::new(State { epoch: 1, failure: None, renewed_at: None });
        let module =
            Arc::new(Self { path: real, pkcs11, state, refused: Mutex::default(), lost_keys: Mutex::default() });
        loaded.push(Arc::clone(&module));
        Ok(module)
    }

    /// Leave to call the library, or why it is not initialised.
    pub(crate) fn enter(&self) -> Result<Entered<'_>, HsmError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match &state.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(Entered { pkcs11: &self.pkcs11, epoch: state.epoch, _state: state }),
        }
    }

    /// The number of the current epoch.
    pub(crate) fn epoch(&self) -> u64 {
        self.state.read().unwrap_or_else(PoisonError::into_inner).epoch
    }

    /// Ends epoch `failed` and begins the next one, unless another thread has done so already or did so a moment ago.
    ///
    /// Returns whether the current epoch is another one than `failed`.
    pub(crate) fn renew(&self, failed: u64) -> bool {
        self.begin_after(failed, true)
    }

    /// The same for a key that is gone, at the pace of those.
    pub(crate) fn renew_for_lost_key(&self, failed: u64) -> bool {
        self.epoch() != failed
            || self.lost_keys.lock().unwrap_or_else(PoisonError::into_inner).may_begin(Instant::now())
                && self.renew(failed)
    }

    /// `is_in_use`: whether somebody works with it: then starts have their pace, and are told.
    fn begin_after(&self, failed: u64, is_in_use: bool) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.epoch != failed && state.failure.is_none() {
            return true;
        }
        if is_in_use && state.renewed_at.is_some_and(|at| at.elapsed() < RENEWAL_PERIOD) {
            return false;
        }
        state.renewed_at = Some(Instant::now());
        if state.failure.is_none() {
            finalize(&self.pkcs11);
        }
        state.epoch += 1;
        let failed_before = state.failure.is_some();
        state.failure = initialize(&self.pkcs11).err();
        match &state.failure {
            None if !is_in_use => {}
            Some(failure) if failed_before => {
                debug!(module = %self.path.display(), error = %failure, "PKCS#11 module is not available yet");
            }
            None => info!(module = %self.path.display(), epoch = state.epoch, "PKCS#11 module was initialised again"),
            Some(failure) => warn!(module = %self.path.display(), error = %failure, "PKCS#11 module is not available"),
        }
        state.failure.is_none()
    }

    /// Starts the library anew if no token of it is open in this process; whether that was done. `self` is one of the two that know it
    /// then.
    pub(crate) fn is_started_anew_if_unused(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) <= 2 && self.begin_after(self.epoch(), false)
    }

    /// Whether the token with this serial number has refused this PIN in this process.
    pub(crate) fn has_refused(&self, serial: &str, pin: Option<&Pin>) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.iter().any(|(s, p)| s == serial && p.as_ref() == pin)
    }

    /// Notes of any token that sending its PIN again would not be right.
    pub(crate) fn note_pin_in_doubt() {
        PIN_WAS_REFUSED.store(true, Ordering::Relaxed);
    }

    /// Remembers that the token with this serial number refused this PIN.
    pub(crate) fn remember_refusal(&self, serial: &str, pin: Option<&Pin>) {
        //= FLT-H1 token faults: "it is sent once"
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).push((serial.to_owned(), pin.cloned()));
    }
}

fn initialize(pkcs11: &Pkcs11) -> Result<(), HsmError> {
    //= FLT-H4 token faults: "it is told to lock by itself"
    match pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(CryptokiError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Ends all sessions of the process on this module. A failure here leaves nothing to do: C_Initialize tells.
fn finalize(pkcs11: &Pkcs11) {
    if let Err(error) = pkcs11.clone().finalize() {
        warn!(error = %HsmError::from(error), "PKCS#11 module could not be finalised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_a_key_that_is_gone_one_epoch_begins_and_then_ever_fewer() {
        let (began, mut lost) = (Instant::now(), LostKeys::default());
        let begun: Vec<u64> = (0..300).filter(|second| lost.may_begin(began + Duration::from_secs(*second))).collect();
        assert_eq!(begun, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
        assert!(lost.may_begin(began + Duration::from_secs(243) + FORGOTTEN_AFTER), "long forgotten");
        assert!(lost.may_begin(began + Duration::from_secs(244) + FORGOTTEN_AFTER), "it begins anew");
    }
}
