//! Where keys come from: this server makes them, or takes those that the HSM's administrator has made.

use std::collections::HashSet;

use ironroot_hsm::{HsmError, KeyKind, KeyName, Token, TokenKey};
use tracing::{error, info, warn};

use super::CaError;
use super::journal::{Journal, KeyMark, KeyRecord, Origin, Place};

/// The token, and which of its keys may be taken.
pub(super) struct KeyStock {
    token: Token,
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

impl KeyStock {
    pub(super) fn new(token: Token, given: Vec<KeyName>) -> Self {
        Self { token, given, told: HashSet::new(), spent: HashSet::new() }
    }

    /// Whether keys are taken and not made.
    pub(super) fn is_given(&self) -> bool {
        !self.given.is_empty()
    }

    /// The key of this name; none only if a logged-in session sees none.
    pub(super) async fn find(&self, name: &KeyName, kind: KeyKind) -> Result<Option<TokenKey>, CaError> {
        Ok(self.token.find_of(kind, name).await?)
    }

    /// The key of a place that does not sign now. None also if it is an administrator's and not fit any more: nobody needs it, and
    /// nothing is destroyed for that.
    pub(super) async fn find_fit(&mut self, record: &KeyRecord, kind: KeyKind) -> Result<Option<TokenKey>, CaError> {
        match record.origin {
            Origin::Made => self.find(&record.name, kind).await,
            Origin::Given => self.fit(&record.name, kind).await,
        }
    }

    /// The key that an intended place gets: made now, over whatever has its name, or an administrator's; none if that is gone or not
    /// fit.
    pub(super) async fn obtain(&mut self, record: &KeyRecord, kind: KeyKind) -> Result<Option<TokenKey>, CaError> {
        let (Origin::Made, Some(id)) = (record.origin, record.name.id()) else {
            return self.find_fit(record, kind).await;
        };
        self.token.destroy(&record.name).await?;
        Ok(Some(self.token.generate(kind, id, record.name.label().unwrap_or_default()).await?))
    }

    /// A key is not used any more: our own is destroyed, an administrator's is left where it is.
    pub(super) async fn release(&self, record: &KeyRecord) -> Result<(), CaError> {
        match record.origin {
            Origin::Made => drop(self.token.destroy(&record.name).await?),
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
    async fn fit(&mut self, name: &KeyName, kind: KeyKind) -> Result<Option<TokenKey>, CaError> {
        match self.token.find_of(kind, name).await {
            Ok(Some(key)) => Ok(Some(key)),
            Ok(None) => {
                if self.told.insert(name.to_string()) {
                    error!(key = %name, "a key that the configuration names is not in the token");
                }
                Ok(None)
            }
            Err(unfit) if is_about_the_key(&unfit) => {
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
    )
}
