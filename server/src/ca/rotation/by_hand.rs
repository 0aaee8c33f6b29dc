//! What an operator may order in place of the plan: another authority prepared, the prepared one activated, an old one tainted and
//! revoked. Pure: the journal decides, as it does for the plan, and what may be done is a value that only this room makes.
//!
//! ```text
//!  Order ─► judged by the journal ─► MayPrepare, MayActivate, MayTaint, MayRevoke ─► performer: the journal to disk, then the effect
//!                    └─► OrderRefusal, in SPIRE's words
//! ```
//! Nobody else says what may be done:
//!
//! ```compile_fail
//! let may = ironroot_server::ca::MayTaint { purpose: ironroot_server::ca::Purpose::Jwt, key: 0 };
//! ```

mod above;
mod below;
mod refusal;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use above::{Leaving, MayDisown};
pub use below::MayDistrust;
pub use refusal::{Action, OrderRefusal, Status};

use crate::ca::journal::{Authority, Journal, MAX_RETIRED, Place, SlotName, Slots};
use crate::ca::purpose::Purpose;
use crate::clock::{Moment, Trust};

/// Authorities beside those in the slots with which another may be prepared by hand: the plan's own rotations find room above.
pub const MAX_RETIRED_BY_HAND: usize = MAX_RETIRED / 2;

/// What an operator orders. Authorities are named by their IDs: a certificate's subject key ID, or the ID of a key of JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Make the next authority of this purpose, and publish it.
    Prepare(Purpose),
    /// Sign with the prepared one of this ID from now on.
    Activate(Purpose, String),
    /// The key of the old one of this ID is in other hands.
    Taint(Purpose, String),
    /// The tainted one of this ID leaves the bundle, and its key is destroyed.
    Revoke(Purpose, String),
    /// As `Taint`, of the root that has signed an old CA.
    TaintUpstream(String),
    /// As `Revoke`, of that.
    RevokeUpstream(String),
}

/// A place may get another key now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct MayPrepare {
    place: Place,
}

/// What is prepared in a place may sign now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct MayActivate {
    place: Place,
}

/// A key may be called tainted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct MayTaint {
    purpose: Purpose,
    key: u64,
}

/// What a key has signed may lose its worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct MayRevoke {
    purpose: Purpose,
    key: u64,
}

impl MayPrepare {
    /// Where: the slot beside the one that signs. What was begun there is finished; what is prepared there has signed nothing, and what
    /// is old there stays in the bundle.
    pub fn judge<C: Clone + PartialEq>(
        journal: &Journal<C>,
        purpose: Purpose,
        moment: Moment,
    ) -> Result<Self, OrderRefusal> {
        let slots = journal.slots(purpose);
        let Some((active, _)) = slots.active() else { return Err(OrderRefusal::Initializing) };
        if moment.trust == Trust::Incident {
            return Err(OrderRefusal::Clock(purpose));
        }
        if slots.retired_count() >= MAX_RETIRED_BY_HAND {
            return Err(OrderRefusal::TooManyRetired(purpose));
        }
        // A root that is in the bundle may be in images too.
        if purpose == Purpose::Root && slots.prepared().is_some() {
            return Err(OrderRefusal::RootIsPrepared);
        }
        let slot = slots.intended().map_or(active.other(), |(slot, _)| slot);
        Ok(Self { place: Place { purpose, slot } })
    }

    /// Where.
    pub fn place(self) -> Place {
        self.place
    }
}

impl MayActivate {
    /// `named`: the key of the ID that was given, if the journal knows that.
    pub fn judge<C: Clone + PartialEq>(
        journal: &Journal<C>,
        purpose: Purpose,
        named: Option<u64>,
    ) -> Result<Self, OrderRefusal> {
        let slots = journal.slots(purpose);
        match named.and_then(|key| status(slots, key)) {
            Some(Status::Prepared) => {}
            Some(Status::Old) => return Err(OrderRefusal::NotPrepared(Status::Old)),
            Some(Status::Active) | None => return Err(OrderRefusal::OtherId),
        }
        let (slot, _) = slots.prepared().ok_or(OrderRefusal::OtherId)?;
        Ok(Self { place: Place { purpose, slot } })
    }

    /// Where.
    pub fn place(self) -> Place {
        self.place
    }
}

impl MayTaint {
    /// `named`: as above. `is_rooted`: whether a root signs CAs now.
    pub fn judge<C: Clone + PartialEq>(
        journal: &Journal<C>,
        purpose: Purpose,
        named: Option<u64>,
        is_rooted: bool,
    ) -> Result<Self, OrderRefusal> {
        let slots = journal.slots(purpose);
        refuse_below_a_root(slots, purpose, named, is_rooted, Action::Taint)?;
        match named.and_then(|key| Some((key, status(slots, key)?))) {
            None => Err(OrderRefusal::OtherId),
            Some((_, Status::Active)) => Err(OrderRefusal::TaintsActive),
            Some((_, status @ Status::Prepared)) => Err(OrderRefusal::NotOld(status)),
            Some((key, Status::Old)) if is_tainted(slots, key) => Err(OrderRefusal::IsTainted(purpose)),
            Some((key, Status::Old)) => Ok(Self { purpose, key }),
        }
    }

    /// The same for a root, at the word of whom it has signed.
    pub fn judge_upstream<C: Clone + PartialEq>(
        journal: &Journal<C>,
        named: Option<u64>,
        is_rooted: bool,
    ) -> Result<Self, OrderRefusal> {
        let key = upstream_key(journal, named, is_rooted, Action::Taint)?;
        match is_tainted(journal.slots(Purpose::Root), key) {
            true => Err(OrderRefusal::IsTainted(Purpose::Root)),
            false => Ok(Self { purpose: Purpose::Root, key }),
        }
    }

    /// Of what, and which of the keys ever used.
    pub fn key(self) -> (Purpose, u64) {
        (self.purpose, self.key)
    }
}

impl MayRevoke {
    /// As [`MayTaint::judge`].
    pub fn judge<C: Clone + PartialEq>(
        journal: &Journal<C>,
        purpose: Purpose,
        named: Option<u64>,
        is_rooted: bool,
    ) -> Result<Self, OrderRefusal> {
        let slots = journal.slots(purpose);
        refuse_below_a_root(slots, purpose, named, is_rooted, Action::Revoke)?;
        match named.and_then(|key| Some((key, status(slots, key)?))) {
            None => Err(OrderRefusal::NotRevocable(purpose)),
            Some((_, Status::Active)) => Err(OrderRefusal::RevokesActive),
            Some((_, Status::Prepared)) => Err(OrderRefusal::RevokesPrepared(purpose)),
            Some((key, Status::Old)) if !is_tainted(slots, key) => Err(OrderRefusal::IsNotTainted(purpose)),
            Some((key, Status::Old)) => Ok(Self { purpose, key }),
        }
    }

    /// As [`MayTaint::judge_upstream`].
    pub fn judge_upstream<C: Clone + PartialEq>(
        journal: &Journal<C>,
        named: Option<u64>,
        is_rooted: bool,
    ) -> Result<Self, OrderRefusal> {
        let key = upstream_key(journal, named, is_rooted, Action::Revoke)?;
        match is_tainted(journal.slots(Purpose::Root), key) {
            true => Ok(Self { purpose: Purpose::Root, key }),
            false => Err(OrderRefusal::IsNotTainted(Purpose::Root)),
        }
    }

    /// Of what, and which of the keys ever used.
    pub fn key(self) -> (Purpose, u64) {
        (self.purpose, self.key)
    }
}

/// What the key is doing. One that is certified twice, by what that does which does most.
fn status<C: Clone + PartialEq>(slots: &Slots<C>, key: u64) -> Option<Status> {
    let has_key = |found: Option<(SlotName, &Authority<C>)>| found.is_some_and(|(_, authority)| authority.key == key);
    if has_key(slots.active()) {
        return Some(Status::Active);
    }
    if has_key(slots.prepared()) {
        return Some(Status::Prepared);
    }
    slots.authorities().iter().any(|authority| authority.key == key).then_some(Status::Old)
}

fn is_tainted<C: Clone + PartialEq>(slots: &Slots<C>, key: u64) -> bool {
    slots.authorities().iter().any(|authority| authority.key == key && authority.is_tainted())
}

/// Bundles have the root above a CA, and so workloads cannot be told of the CA. One that signed itself, before there was a root, they can.
fn refuse_below_a_root<C: Clone + PartialEq>(
    slots: &Slots<C>,
    purpose: Purpose,
    named: Option<u64>,
    is_rooted: bool,
    action: Action,
) -> Result<(), OrderRefusal> {
    let signed_itself = |key| slots.anchors().iter().any(|authority| authority.key == key);
    match purpose == Purpose::X509Ca && is_rooted && !named.is_some_and(signed_itself) {
        true => Err(OrderRefusal::IsBelowARoot(action)),
        false => Ok(()),
    }
}

/// The root of that key, if it signs nothing now and will not, and has signed an old CA.
fn upstream_key<C: Clone + PartialEq>(
    journal: &Journal<C>,
    named: Option<u64>,
    is_rooted: bool,
    action: Action,
) -> Result<u64, OrderRefusal> {
    if !is_rooted {
        return Err(OrderRefusal::NoRoot);
    }
    let (roots, cas) = (journal.slots(Purpose::Root), journal.slots(Purpose::X509Ca));
    let key = named.ok_or(OrderRefusal::SignedNoOld(action))?;
    let signed = |slot: Option<(SlotName, &Authority<C>)>| slot.is_some_and(|(_, ca)| ca.root == Some(key));
    match status(roots, key) {
        None | Some(Status::Prepared) => Err(OrderRefusal::SignedNoOld(action)),
        Some(Status::Active) => Err(OrderRefusal::SignsActive(action)),
        Some(Status::Old) if signed(cas.active()) => Err(OrderRefusal::SignsActive(action)),
        Some(Status::Old) if signed(cas.prepared()) => Err(OrderRefusal::SignsPrepared(action)),
        Some(Status::Old) => Ok(key),
    }
}
