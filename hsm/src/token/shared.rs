//! What the threads of a token and the handles to it share, beside the queue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::login::Logins;
use super::trouble::Trouble;
use crate::module::Module;

/// One token of a module.
pub(super) struct Shared {
    pub(super) module: Arc<Module>,
    pub(super) logins: Logins,
    trouble: Mutex<Trouble>,
    /// It was said that the token does not tell CKA_LOCAL.
    told_origin: AtomicBool,
}

impl Shared {
    pub(super) fn new(module: Arc<Module>, logins: Logins) -> Self {
        Self { module, logins, trouble: Mutex::default(), told_origin: AtomicBool::new(false) }
    }

    /// The failures of key generation in a row.
    pub(super) fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the token's silence about CKA_LOCAL is to be told now: once.
    pub(super) fn is_origin_untold(&self) -> bool {
        !self.told_origin.swap(true, Ordering::Relaxed)
    }
}
