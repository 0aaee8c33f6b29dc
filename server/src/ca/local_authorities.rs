//! What an operator sees of the authorities of this server: which signs, which comes next, which signed before.

use ironroot_api::certificate::Certificate;
use ironroot_text::hex::hex;

use super::journal::{Authority, Credential, Journal, Slot, SlotName, Slots};
use super::purpose::Purpose;
use crate::facts::tier::{TierAuthorities, TierAuthority, TierOrigin};

/// One authority. Source: SPIRE, `AuthorityState`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorityState {
    /// A certificate's subject key ID in lower-case hexadecimal digits, or the ID of a key of JWT-SVIDs.
    pub id: String,
    /// When its certificate begins, UNIX seconds; none of a key of JWT-SVIDs.
    pub since_unix: Option<i64>,
    /// Its end, UNIX seconds.
    pub expires_at_unix: i64,
    /// The subject key ID of the root above a CA; empty without one.
    pub upstream_id: String,
}

/// Those of one purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAuthorities {
    /// It signs.
    pub active: Option<AuthorityState>,
    /// It is in the bundle, or its root is, and signs nothing yet.
    pub prepared: Option<AuthorityState>,
    /// It signed before the active one, and its key is still in the token.
    pub old: Option<AuthorityState>,
    /// Other roots of the authority above.
    pub published: Vec<AuthorityState>,
}

impl LocalAuthorities {
    /// The roots of the authority above that the bundle has: of the CA that signs, of the next one if that is another, and one that a CA of
    /// before hung on. One on which no CA here has hung may be the next there, or that of a server beside the one above: which, nobody says.
    pub(super) fn above(journal: &Journal, tiers: &TierAuthorities) -> Self {
        let state = |root: &TierAuthority| {
            let is_root = root.origin == TierOrigin::Above;
            let id = root.subject_key_id().filter(|_| is_root)?;
            Some(AuthorityState { id, expires_at_unix: root.expires_at, ..AuthorityState::default() })
        };
        let roots: Vec<AuthorityState> = tiers.authorities.iter().filter_map(state).collect();
        let cas = journal.slots(Purpose::X509Ca);
        let of = |ca: Option<(SlotName, &Authority)>| {
            let id = ca.and_then(|(_, ca)| ca.root_above())?;
            roots.iter().find(|root| root.id == id).cloned()
        };
        let (active, prepared) = (of(cas.active()), of(cas.prepared()));
        let prepared = prepared.filter(|prepared| active.as_ref() != Some(prepared));
        let has_signed =
            |root: &&AuthorityState| cas.authorities().iter().any(|ca| ca.root_above().as_ref() == Some(&root.id));
        let signs = |root: &&AuthorityState| [&active, &prepared].into_iter().flatten().any(|one| one == *root);
        let old = roots.iter().find(|root| !signs(root) && has_signed(root)).cloned();
        let published = roots.iter().filter(|root| !signs(root) && !has_signed(root)).cloned().collect();
        Self { active, prepared, old, published }
    }

    /// As the journal has them.
    pub(super) fn of(journal: &Journal, purpose: Purpose) -> Self {
        let slots = journal.slots(purpose);
        let state = |found: Option<(SlotName, &Authority)>| found.map(|(_, authority)| authority.state());
        let (active, prepared, old) =
            (state(slots.active()), state(slots.prepared()), old(slots).map(Authority::state));
        Self { active, prepared, old, published: Vec::new() }
    }
}

fn old(slots: &Slots) -> Option<&Authority> {
    SlotName::BOTH.into_iter().find_map(|name| match slots.slot(name) {
        Slot::Old(authority) => Some(authority),
        _ => None,
    })
}

impl Authority {
    /// What an operator sees of it.
    pub fn state(&self) -> AuthorityState {
        let root = self.root.and_then(|_| self.credential.certificate()?.authority_key_id());
        let upstream_id = root.map(|id| hex(&id)).or_else(|| self.root_above()).unwrap_or_default();
        let since_unix = self.credential.certificate().map(Certificate::not_before_unix);
        AuthorityState { id: self.credential.id(), since_unix, expires_at_unix: self.not_after, upstream_id }
    }

    /// The subject key ID of the root that it hangs on, in lower-case hexadecimal digits, if that is one of the authority above.
    pub(super) fn root_above(&self) -> Option<String> {
        let last = self.upstream.as_ref()?.last().or_else(|| self.credential.certificate());
        last?.authority_key_id().map(|id| hex(&id))
    }

    /// Whether that is one of these.
    pub(super) fn hangs_on(&self, roots: &[String]) -> bool {
        self.root_above().is_some_and(|root| roots.contains(&root))
    }
}

impl Journal {
    /// These roots of the authority above are in other hands, by their subject key IDs: CAs below them sign nothing more.
    pub(super) fn disown(self, roots: &[String]) -> Self {
        self.taint_cas(|ca| ca.hangs_on(roots))
    }
}

impl Credential {
    /// What operators call what is verified with it: the same for each certificate of one key.
    pub fn id(&self) -> String {
        match self {
            Self::Certificate(certificate) => {
                certificate.parsed().subject_key_id().map(|id| hex(&id)).unwrap_or_default()
            }
            Self::JwtKey(key) | Self::WitKey(key) => key.key_id().as_str().to_owned(),
        }
    }
}

impl Slots {
    /// The key of the authority of that ID, whichever of the keys ever used it is.
    pub(super) fn key_named(&self, id: &str) -> Option<u64> {
        self.authorities().into_iter().find(|authority| authority.credential.id() == id).map(|authority| authority.key)
    }
}
