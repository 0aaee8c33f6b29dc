//! Where keys come from: this server makes them, or takes those that the HSM's administrator has made.

use std::collections::HashSet;

use ironroot_api::TrustDomain;
use ironroot_hsm::{HsmError, KeyKind, KeyName};
use tracing::{error, info, warn};

use super::CaError;
use super::journal::{Authority, Journal, KeyMark, KeyRecord, Origin, Place};
use super::server_name::ServerName;
use crate::keys::{Key, KeyError, KeyManagers};

/// The key managers, and which of their keys may be taken.
pub(super) struct KeyStock {
    managers: KeyManagers,
    /// Keys of an administrator, on P-256, in the order in which they are taken. None: keys are made.
    given: Vec<KeyName>,
    /// Those of which it was said that they cannot be used.
    told: HashSet<String>,
    /// Those that are known to be used: the token need not prove again that it has them.
    spent: HashSet<String>,
}

/// A key of an administrator that nobody has used.
pub(super) struct FreeKey {
    pub(super) record: KeyRecord,
    pub(super) mark: KeyMark,
}

/// A key that was looked for, and where it was found.
pub(super) struct FoundKey {
    pub(super) key: Key,
    /// In the key manager that the CA moves away from.
    pub(super) is_in_former: bool,
}

impl KeyStock {
    pub(super) fn new(managers: KeyManagers, given: Vec<KeyName>) -> Self {
        Self { managers, given, told: HashSet::new(), spent: HashSet::new() }
    }

    /// Whether keys are taken and not made.
    pub(super) fn is_given(&self) -> bool {
        !self.given.is_empty()
    }

    /// Where keys are, and where they were before.
    pub(super) fn managers(&self) -> &KeyManagers {
        &self.managers
    }

    /// What a key is called that is made for this place. In a file it has the name that SPIRE gives it; it is one server's.
    pub(super) fn name_of(&self, place: Place, trust_domain: &TrustDomain, server: &ServerName) -> KeyName {
        let in_a_token = place.key_name(trust_domain, server);
        match self.managers.current.is_software() {
            true => KeyName::labelled(&place.to_string()).unwrap_or(in_a_token),
            false => in_a_token,
        }
    }

    /// The key of this name where keys are made now; none only if a logged-in session sees none.
    pub(super) async fn find_made(&self, name: &KeyName, kind: KeyKind) -> Result<Option<Key>, CaError> {
        Ok(self.managers.current.find(kind, name).await?)
    }

    /// The key of an authority: the one that it is verified with, where keys are made now or were before. If there is only another
    /// one of its name, that one.
    pub(super) async fn find_of(&self, authority: &Authority) -> Result<Option<FoundKey>, CaError> {
        let now = self.find_made(&authority.in_token.name, authority.credential.key_kind()).await;
        self.or_in_former(authority, now).await
    }

    /// The same of one that does not sign now. None also if it is an administrator's and not fit any more: nobody needs it, and
    /// nothing is destroyed for that.
    pub(super) async fn find_fit(&mut self, authority: &Authority) -> Result<Option<FoundKey>, CaError> {
        let (record, kind) = (&authority.in_token, authority.credential.key_kind());
        let now = match record.origin {
            Origin::Made => self.find_made(&record.name, kind).await,
            Origin::Given => self.fit(&record.name, kind).await,
        };
        self.or_in_former(authority, now).await
    }

    /// What has its name where keys are made now is used only if it is the one; one that cannot be used hides none in the former.
    async fn or_in_former(
        &self,
        authority: &Authority,
        now: Result<Option<Key>, CaError>,
    ) -> Result<Option<FoundKey>, CaError> {
        let is_certified = |key: &Key| authority.credential.is_of(key.spki_der());
        let may_be_in_former = match &now {
            Ok(key) => key.as_ref().is_none_or(|key| !is_certified(key)),
            Err(error) => error.is_about_a_key(),
        };
        if may_be_in_former && let Some(former) = self.managers.former() {
            match former.find(authority.credential.key_kind(), &authority.in_token.name).await.map_err(CaError::from) {
                Ok(Some(key)) if is_certified(&key) => return Ok(Some(FoundKey { key, is_in_former: true })),
                Err(error) if !error.is_of_another_kind() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(now?.map(|key| FoundKey { key, is_in_former: false }))
    }

    /// The key that an intended place gets: made now, over whatever has its name, or an administrator's; none if that is gone or not
    /// fit.
    pub(super) async fn obtain(&mut self, record: &KeyRecord, kind: KeyKind) -> Result<Option<Key>, CaError> {
        if record.origin == Origin::Given {
            return self.fit(&record.name, kind).await;
        }
        self.managers.current.destroy(&record.name).await?;
        Ok(Some(self.managers.current.make(kind, &record.name).await?))
    }

    /// A key is not used any more: our own is destroyed, an administrator's is left where it is, and so is what is left in a key manager
    /// of before, which goes as a whole.
    pub(super) async fn release(&self, record: &KeyRecord) -> Result<(), CaError> {
        match record.origin {
            Origin::Made => drop(self.managers.current.destroy(&record.name).await?),
            Origin::Given => info!(
                key = %record.name,
                "a key of the HSM's administrator is not used any more and will not be used again; it stays in the token, and its \
                 administrator may destroy it"
            ),
        }
        Ok(())
    }

    /// The first key of the administrator's that no journal has used and that is fit. Of one that is not, it is said once why.
    pub(super) async fn first_free(
        &mut self,
        journal: &Journal,
        others: &[Journal],
    ) -> Result<Option<FreeKey>, CaError> {
        let unspent: Vec<_> =
            self.given.iter().filter(|name| !self.spent.contains(&name.to_string())).cloned().collect();
        for name in unspent {
            let Some(key) = self.fit(&name, KeyKind::EcP256).await? else { continue };
            let mark = KeyMark::of(key.spki_der());
            if journal.has_used(&mark) || is_used(others, &mark) {
                self.spent.insert(name.to_string());
                continue;
            }
            if !key.says_local() && self.told.insert(name.to_string()) {
                warn!(key = %name, "the token does not say that this key was made inside (CKA_LOCAL): its administrator must know");
            }
            return Ok(Some(FreeKey { record: KeyRecord::given(key.name().clone(), mark.clone()), mark }));
        }
        Ok(None)
    }

    /// The key of this name if it is there and protected as one of our own; a failure of the token is an error.
    async fn fit(&mut self, name: &KeyName, kind: KeyKind) -> Result<Option<Key>, CaError> {
        match self.managers.current.find(kind, name).await {
            Ok(Some(key)) => Ok(Some(key)),
            Ok(None) => {
                if self.told.insert(name.to_string()) {
                    error!(key = %name, "a key that the configuration names is not in the token");
                }
                Ok(None)
            }
            Err(KeyError::Token(unfit)) if is_about_the_key(&unfit) => {
                if self.told.insert(name.to_string()) {
                    error!(
                        error = &unfit as &dyn std::error::Error,
                        "a key that the configuration names cannot be used"
                    );
                }
                Ok(None)
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Why none is free for `place`.
    pub(super) fn none_free(&self, place: Place) -> CaError {
        CaError::NoFreeKey { slot: place, listed: self.given.len() }
    }
}

/// Whether one of these journals has taken the key.
pub(super) fn is_used(journals: &[Journal], key: &KeyMark) -> bool {
    journals.iter().any(|journal| journal.has_used(key))
}

/// Whether the key is at fault, and not the token.
pub(super) fn is_about_the_key(error: &HsmError) -> bool {
    matches!(
        error,
        HsmError::DuplicateKey { .. }
            | HsmError::PublicKeyMissing(_)
            | HsmError::KeyUnprotected { .. }
            | HsmError::KeyUnusable { .. }
            | HsmError::KeyOfAnotherKind { .. }
    )
}
