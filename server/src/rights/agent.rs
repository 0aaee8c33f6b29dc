//! The right of an attested agent.

use ironroot_api::SpiffeId;

use super::{Caller, NoRight, OwnAuthorities};

/// What the registry says of an agent that shows a certificate. The order of the variants is the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentStanding {
    /// No such agent: never attested, or deleted.
    NotAttested,
    /// Shut out by an operator.
    Banned,
    /// The certificate is the agent's current one.
    Active,
    /// The certificate is the renewed one, shown for the first time: activate it, then go on.
    ActivatePending,
    /// The certificate is neither: replaced, or a copy's.
    NotActive,
}

/// A certificate that the TLS handshake has verified and that has not ended. Whose it is now, the registry knows.
#[derive(Clone, Debug)]
#[must_use]
pub struct ShownCertificate {
    caller: Caller,
    id: SpiffeId,
    serial: String,
    not_after_unix: i64,
}

impl ShownCertificate {
    /// The certificate of `caller`'s connection. Refused: no certificate, one that none of `own` has signed, and one that has ended at
    /// `now_unix`.
    pub fn judge(caller: Caller, own: &OwnAuthorities, now_unix: i64) -> Result<Self, NoRight> {
        let svid = caller.svid().ok_or(NoRight::NoCertificate)?;
        let svid = own.judge(svid).ok_or(NoRight::AgentSignedElsewhere)?.svid();
        let (id, serial) = (svid.spiffe_id().clone(), svid.serial().to_owned());
        let shown = Self { id, serial, not_after_unix: svid.not_after_unix(), caller };
        shown.refuse_expired(now_unix)?;
        Ok(shown)
    }

    /// The SPIFFE ID in the certificate.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Its decimal serial.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The connection that it was shown on.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Lets the agent pass whose current certificate this is, by what the registry says of it. Source: SPIRE's agent
    /// authorizer, which tells whoever shows a certificate why it does not count, workloads too.
    pub fn authenticate(self, standing: AgentStanding) -> Result<AuthenticatedAgent, NoRight> {
        check(standing)?;
        Ok(AuthenticatedAgent(self))
    }

    fn refuse_expired(&self, now_unix: i64) -> Result<(), NoRight> {
        if self.not_after_unix <= now_unix { Err(NoRight::AgentExpired) } else { Ok(()) }
    }
}

/// An attested agent whose current certificate has been shown on this connection.
#[derive(Clone, Debug)]
#[must_use]
pub struct AuthenticatedAgent(ShownCertificate);

impl AuthenticatedAgent {
    /// The agent and its connection.
    pub fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// The SPIFFE ID that the registry knows the agent by.
    pub fn id(&self) -> &SpiffeId {
        &self.0.id
    }

    /// The decimal serial of the certificate it showed.
    pub fn serial(&self) -> &str {
        &self.0.serial
    }

    /// The certificate that it was let pass with.
    pub fn certificate(&self) -> &ShownCertificate {
        &self.0
    }

    /// Refuses an agent that was let pass and has been banned, deleted or replaced since, or whose certificate has ended: a
    /// call may last. `standing`: what the registry says of it now.
    pub fn check_again(&self, standing: AgentStanding, now_unix: i64) -> Result<(), NoRight> {
        self.0.refuse_expired(now_unix)?;
        check(standing)
    }
}

fn check(standing: AgentStanding) -> Result<(), NoRight> {
    match standing {
        AgentStanding::Active => Ok(()),
        AgentStanding::NotAttested => Err(NoRight::AgentNotAttested),
        AgentStanding::Banned => Err(NoRight::AgentBanned),
        AgentStanding::NotActive | AgentStanding::ActivatePending => Err(NoRight::AgentNotActive),
    }
}
