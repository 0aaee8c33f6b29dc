//! What the threads of a token and the handles to it share, beside the queue.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    opened_at: Instant,
    /// When the token last signed, milliseconds after `opened_at`, plus one; zero if it never did.
    signed_at: AtomicU64,
}

impl Shared {
    pub(super) fn new(module: Arc<Module>, logins: Logins) -> Self {
        Self {
            module,
            logins,
            trouble: Mutex::default(),
            told_origin: AtomicBool::new(false),
            opened_at: Instant::now(),
            signed_at: AtomicU64::new(0),
        }
    }

    /// The failures of key generation in a row.
    pub(super) fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the token's silence about CKA_LOCAL is to be told now: once.
    pub(super) fn is_origin_untold(&self) -> bool {
        !self.told_origin.swap(true, Ordering::Relaxed)
    }

    pub(super) fn note_signature(&self) {
        let millis = u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.signed_at.store(millis + 1, Ordering::Relaxed);
    }

    /// How long ago the token last signed; none if it has not yet.
    pub(super) fn signed_ago(&self) -> Option<Duration> {
        let at = Duration::from_millis(self.signed_at.load(Ordering::Relaxed).checked_sub(1)?);
        Some(self.opened_at.elapsed().saturating_sub(at))
    }
}
