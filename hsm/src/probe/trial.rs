//! A key's whole life on a token: made, found, signed with, destroyed.

use std::time::{Duration, Instant};

use aws_lc_rs::rand;

use crate::error::HsmError;
use crate::kind::KeyKind;
use crate::name::{KeyId, KeyName};
use crate::token::{Token, Urgency};

/// What each key is called that a trial makes; whatever has this label is a trial's, and a later trial destroys it.
pub const TRIAL_LABEL: &str = "ironroot hsm probe";
/// Length of the CKA_ID of such a key, bytes: as those of the CA's own keys.
const ID_BYTES: usize = 16;
/// Signatures that are timed.
const SIGNATURES: u32 = 5;

/// What became of one key.
#[derive(Clone, Debug)]
pub struct KeyTrial {
    /// What kind of key.
    pub kind: KeyKind,
    /// How long it took to make and to check; or why there was none.
    pub made: Result<Duration, HsmError>,
    /// How long a signature takes; none if there was no key.
    pub signed: Option<Result<Duration, HsmError>>,
    /// Whether it was found again by its CKA_ID.
    pub found: Option<Result<bool, HsmError>>,
    /// Whether nothing of it is left.
    pub destroyed: Result<bool, HsmError>,
    /// Whether the token says that it was made inside (CKA_LOCAL).
    pub says_local: bool,
}

impl KeyTrial {
    /// Whether the CA could live with keys of this kind there.
    pub fn is_good(&self) -> bool {
        self.made.is_ok()
            && matches!(self.found, Some(Ok(true)))
            && matches!(self.signed, Some(Ok(_)))
            && matches!(self.destroyed, Ok(true))
    }

    /// The first thing that went wrong, in words; none if nothing did.
    pub fn trouble(&self) -> Option<String> {
        let made = self.made.as_ref().err().map(|error| format!("not made: {error}"));
        let signed = self.signed.iter().find_map(|signed| Some(format!("does not sign: {}", signed.as_ref().err()?)));
        let found = self.found.iter().find_map(|found| match found {
            Ok(true) => None,
            Ok(false) => Some("not found again by its CKA_ID".to_owned()),
            Err(error) => Some(format!("not found again: {error}")),
        });
        let destroyed = match &self.destroyed {
            Ok(true) => None,
            Ok(false) => Some(format!("it is still there: delete what is labelled {TRIAL_LABEL:?}")),
            Err(error) => Some(format!("not destroyed: {error}; delete what is labelled {TRIAL_LABEL:?}")),
        };
        made.or(signed).or(found).or(destroyed)
    }
}

/// Lives through the life of one key of each of `kinds`. Nothing stays on the token, nor what a trial that was interrupted had left.
/// `begins`: is told each kind before it is tried, which some tokens need a minute for.
pub async fn try_keys(
    token: &Token,
    kinds: &[KeyKind],
    mut begins: impl FnMut(KeyKind),
) -> Result<Vec<KeyTrial>, HsmError> {
    if let Some(left) = KeyName::labelled(TRIAL_LABEL) {
        token.destroy(left).await?;
    }
    let mut trials = Vec::with_capacity(kinds.len());
    for kind in kinds {
        begins(*kind);
        trials.push(try_key(token, *kind).await?);
    }
    Ok(trials)
}

async fn try_key(token: &Token, kind: KeyKind) -> Result<KeyTrial, HsmError> {
    let id = random_id();
    let began = Instant::now();
    let made = token.generate(kind, &id, TRIAL_LABEL).await;
    let took = began.elapsed();
    let (mut signed, mut found, mut says_local) = (None, None, false);
    if let Ok(key) = &made {
        says_local = key.says_local();
        signed = Some(time_signatures(key).await);
        let again = token.find_of(kind, key.name()).await;
        found = Some(again.map(|again| again.is_some_and(|again| again.spki_der() == key.spki_der())));
    }
    let name = made.as_ref().map_or_else(|_| KeyName::new(id, TRIAL_LABEL), |key| key.name().clone());
    let destroyed = match token.destroy(&name).await {
        Ok(_) => token.find_of(kind, name).await.map(|left| left.is_none()),
        Err(error) => Err(error),
    };
    Ok(KeyTrial { kind, made: made.map(|_| took), signed, found, destroyed, says_local })
}

async fn time_signatures(key: &crate::token::TokenKey) -> Result<Duration, HsmError> {
    let began = Instant::now();
    for _ in 0..SIGNATURES {
        key.sign_message(b"ironroot asks what the token can do", Urgency::FIRST).await?;
    }
    Ok(began.elapsed() / SIGNATURES)
}

fn random_id() -> KeyId {
    let mut id = [0; ID_BYTES];
    rand::fill(&mut id).expect("the system has randomness");
    KeyId::new(&id).expect("sixteen bytes are a CKA_ID")
}
