//! Keys of tokens that no CA of this data store has: those that servers below have published, or an administrator has appended.

use super::{Action, OrderRefusal};
use crate::ca::journal::Journal;
use crate::ca::purpose::Purpose;
use crate::facts::tier::{TierAuthorities, TierAuthority, TierCredential, TierOrigin};

/// A key of another server of which that may be said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct MayDistrust {
    /// What each of those who have told of it has said.
    told: Vec<TierAuthority>,
    action: Action,
}

impl MayDistrust {
    /// The key of that ID, tainted first and revoked then, as this server's own; none if it is one of this server's own, or nobody below has
    /// published it.
    pub fn judge(
        journal: &Journal,
        tiers: &TierAuthorities,
        purpose: Purpose,
        id: &str,
        action: Action,
    ) -> Result<Option<Self>, OrderRefusal> {
        let is_it = |one: &&TierAuthority| match (&one.credential, purpose) {
            (TierCredential::JwtKey { key_id, .. }, Purpose::Jwt)
            | (TierCredential::WitKey { key_id, .. }, Purpose::Wit) => key_id == id,
            _ => false,
        };
        let told: Vec<_> = tiers.authorities.iter().filter(is_it).cloned().collect();
        let is_above = |one: &TierAuthority| one.origin == TierOrigin::Above;
        if journal.slots(purpose).key_named(id).is_some() || told.iter().all(is_above) {
            return Ok(None);
        }
        match (action, told.iter().all(|one| one.tainted)) {
            (Action::Taint, true) => Err(OrderRefusal::IsTainted(purpose)),
            (Action::Revoke, false) => Err(OrderRefusal::IsNotTainted(purpose)),
            // It would be back with what the authority above says next.
            (Action::Revoke, true) if told.iter().any(is_above) => Err(OrderRefusal::IsAbove(purpose)),
            _ => Ok(Some(Self { told, action })),
        }
    }

    /// All that was told of it, and what is said of that.
    pub fn key(self) -> (Vec<TierAuthority>, Action) {
        (self.told, self.action)
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::TrustDomain;

    use super::*;
    use crate::ca::server_name::ServerName;

    fn key(origin: TierOrigin, tainted: bool) -> TierAuthority {
        let credential = TierCredential::JwtKey { key_id: "k".into(), spki: vec![1] };
        TierAuthority { origin, credential, expires_at: 9, tainted }
    }

    #[test]
    fn a_key_that_was_published_from_below_is_tainted_and_then_revoked_unless_the_authority_above_has_it_too() {
        let domain = TrustDomain::new("example.org").expect("legal");
        let below = || TierOrigin::Below(domain.server_id().into());
        let journal = Journal::new(&domain, &ServerName::default());
        let judge = |authorities: &[TierAuthority], purpose, id: &str, action| {
            let tiers = TierAuthorities { authorities: authorities.to_vec(), revision: 0 };
            MayDistrust::judge(&journal, &tiers, purpose, id, action)
        };
        let (sound, tainted) = (key(below(), false), key(below(), true));
        for (known, purpose, id) in [
            (sound.clone(), Purpose::Wit, "k"),
            (sound.clone(), Purpose::Jwt, "other"),
            (sound.clone(), Purpose::Jwt, ""),
            (key(TierOrigin::Above, false), Purpose::Jwt, "k"),
        ] {
            assert_eq!(judge(&[known], purpose, id, Action::Taint), Ok(None), "{purpose} {id}");
        }
        for (known, action, refusal) in [
            (vec![tainted.clone()], Action::Taint, OrderRefusal::IsTainted(Purpose::Jwt)),
            (vec![sound.clone()], Action::Revoke, OrderRefusal::IsNotTainted(Purpose::Jwt)),
            (vec![tainted.clone(), key(TierOrigin::Above, true)], Action::Revoke, OrderRefusal::IsAbove(Purpose::Jwt)),
        ] {
            assert_eq!(judge(&known, Purpose::Jwt, "k", action), Err(refusal));
        }
        for (known, action) in [
            (vec![sound, key(TierOrigin::Administrator, true)], Action::Taint),
            (vec![tainted], Action::Revoke),
            (vec![key(TierOrigin::Administrator, true)], Action::Revoke),
        ] {
            let may = judge(&known, Purpose::Jwt, "k", action).expect("may").expect("published");
            assert_eq!(may.key(), (known, action));
        }
    }
}
