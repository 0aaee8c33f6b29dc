//! How calls ended: by method, by who called, and those that were refused before anything of them was read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_shell::telemetry::Calls;
use tonic::Code;

use super::policy::{Method, POLICY};
use super::roles::Role;

/// Grows with nothing: a place for each method and role there is.
#[derive(Debug)]
pub struct Tally {
    methods: Vec<Calls>,
    roles: [Calls; Role::ALL.len()],
    refused: Calls,
    exchanges: Calls,
}

impl Tally {
    /// Of no call.
    pub fn new() -> Arc<Self> {
        let methods = POLICY.iter().map(|_| Calls::default()).collect();
        Arc::new(Self {
            methods,
            roles: Role::ALL.map(|_| Calls::default()),
            refused: Calls::default(),
            exchanges: Calls::default(),
        })
    }

    /// A call of `role` that `began` then.
    pub(super) fn under_way(this: &Arc<Self>, method: &'static Method, role: Role, began: Instant) -> Counting {
        Counting { tally: Arc::clone(this), method, role, began }
    }

    /// A call of nobody who may: of no method if `method` is none.
    pub(super) fn refused(&self, method: Option<&Method>, code: Code, time: Duration) {
        self.refused.ended(code, time);
        self.note(method, code, time);
    }

    /// A token that was shown at the listener for token exchange.
    pub(super) fn exchanged(&self, code: Code, time: Duration) {
        self.exchanges.ended(code, time);
    }

    /// Tokens that were shown there.
    pub fn exchanges(&self) -> &Calls {
        &self.exchanges
    }

    fn note(&self, method: Option<&Method>, code: Code, time: Duration) {
        let place = method.and_then(|method| POLICY.iter().position(|line| line.path == method.path));
        if let Some(place) = place {
            self.methods[place].ended(code, time);
        }
    }

    /// Each method's path, and its calls.
    pub fn by_method(&self) -> impl Iterator<Item = (&'static str, &Calls)> {
        POLICY.iter().map(|line| line.path).zip(&self.methods)
    }

    /// The calls of each role that were let in.
    pub fn by_role(&self) -> impl Iterator<Item = (Role, &Calls)> {
        Role::ALL.into_iter().zip(&self.roles)
    }

    /// The calls that were not.
    pub fn all_refused(&self) -> &Calls {
        &self.refused
    }
}

/// A call that is under way, until it is known how it ended.
#[derive(Debug)]
pub(super) struct Counting {
    tally: Arc<Tally>,
    method: &'static Method,
    role: Role,
    began: Instant,
}

impl Counting {
    /// It ended with this code.
    pub(super) fn with(self, code: Code) {
        let time = self.began.elapsed();
        self.tally.note(Some(self.method), code, time);
        self.tally.roles[self.role as usize].ended(code, time);
    }
}
