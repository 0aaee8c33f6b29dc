//! The right that agents and administrators share.

use super::{Administrator, AuthenticatedAgent, Caller};

/// The right to what agents and administrators may read alike.
#[derive(Clone, Debug)]
#[must_use]
pub struct Insider(Caller);

impl Insider {
    /// Who was let in.
    pub fn caller(&self) -> &Caller {
        &self.0
    }
}

impl From<&Administrator> for Insider {
    fn from(administrator: &Administrator) -> Self {
        Self(administrator.caller().clone())
    }
}

impl From<&AuthenticatedAgent> for Insider {
    fn from(agent: &AuthenticatedAgent) -> Self {
        Self(agent.caller().clone())
    }
}
