//! Keys of JWT-SVIDs and of WIT-SVIDs: SPIRE keeps both alike.

use std::collections::BTreeMap;

use ironroot_api::csr::Spki;

use super::{Taking, has_key, place_of, slot_of, standing};
use crate::ca::{Credential, Inherited, JwtKey, KeyId, Place, Purpose, Standing};
use crate::keys::SoftwareKey;
use crate::takeover::error::TakeoverError;
use crate::takeover::journal_blob::{PublicKey, Status, TokenKeyEntry};
use crate::takeover::report::What;

/// When a key ends of which SPIRE says that it never does, seconds from now: a hundred years.
const NEVER: i64 = 100 * 365 * 24 * 60 * 60;

/// A key of tokens that is here: how far its life is.
pub(super) struct SigningTokenKey {
    standing: Standing,
    kid: String,
    spki: Vec<u8>,
    issued_at: i64,
    not_after: i64,
}

impl Taking<'_> {
    /// The active key and the one beside it, which must be here.
    pub(super) fn signing_token_keys(
        &mut self,
        purpose: Purpose,
        entries: &[TokenKeyEntry],
        keys: &BTreeMap<String, SoftwareKey>,
    ) -> Result<Vec<SigningTokenKey>, TakeoverError> {
        let mut signing: Vec<SigningTokenKey> = Vec::new();
        let newest_first = || entries.iter().rev();
        let is_active = |key: &TokenKeyEntry| key.status == Status::Active as i32;
        let active = newest_first().find(|key| is_active(key));
        for key in active.into_iter().chain(newest_first().filter(|key| !is_active(key))) {
            let Some(slot) = slot_of(&key.slot_id).filter(|_| key.not_after > self.now_unix) else { continue };
            let place = Place { purpose, slot };
            if !has_key(keys, place, &key.public_key, is_active(key))?
                || signing.iter().any(|other| place_of(other.standing) == Some(place))
            {
                continue;
            }
            let Some(standing) = standing(key.status, place) else { continue };
            let (kid, spki) = (key.kid.clone(), key.public_key.clone());
            signing.push(SigningTokenKey { standing, kid, spki, issued_at: key.issued_at, not_after: key.not_after });
        }
        Ok(signing)
    }

    /// Those of the bundle, in its order; how many.
    pub(super) fn take_token_keys(
        &mut self,
        purpose: Purpose,
        bundle: &[PublicKey],
        mut signing: Vec<SigningTokenKey>,
    ) -> usize {
        let (what, mut taken) = (what(purpose), 0);
        for key in bundle {
            let own = signing.iter().position(|own| own.kid == key.kid && own.spki == key.pkix_bytes);
            let own = own.map(|own| signing.swap_remove(own));
            if key.not_after != 0 && key.not_after <= self.now_unix {
                self.report.leave(what, &key.kid, "it has ended");
                continue;
            }
            let credential = match credential(purpose, key) {
                Ok(credential) => credential,
                Err(why) => {
                    self.report.leave(what, &key.kid, why);
                    continue;
                }
            };
            let never = self.now_unix.saturating_add(NEVER);
            let (standing, issued_at, not_after) = match own {
                Some(own) => (own.standing, own.issued_at, own.not_after),
                None => {
                    (Standing::Verifies(purpose), self.now_unix, if key.not_after == 0 { never } else { key.not_after })
                }
            };
            let is_tainted = key.tainted_key;
            self.take(Inherited { credential, issued_at, not_after, standing, upstream: None, is_tainted });
            taken += 1;
        }
        for key in signing {
            self.report.leave(what, key.kid, "it signs nothing here: it is not in the trust domain's bundle");
        }
        taken
    }
}

fn what(purpose: Purpose) -> What {
    match purpose {
        Purpose::Wit => What::WitAuthority,
        _ => What::JwtAuthority,
    }
}

fn credential(purpose: Purpose, key: &PublicKey) -> Result<Credential, String> {
    let kid = KeyId::try_from(key.kid.clone())
        .map_err(|_| "its ID is not of 32 letters and digits, as SPIRE's are".to_owned())?;
    let spki = Spki::parse(&key.pkix_bytes).map_err(|error| format!("its key cannot be used: {error}"))?;
    let key = JwtKey::new(kid, spki);
    Ok(if purpose == Purpose::Wit { Credential::WitKey(key) } else { key.into() })
}
