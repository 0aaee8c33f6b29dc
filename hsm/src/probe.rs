//! What a PKCS#11 module and its tokens can do: what they say of themselves, and what shows when it is tried.
//!
//! To look costs no login. To try needs one, makes a key of each kind under a label of its own, and destroys it again.

mod trial;

use std::path::Path;

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::MechanismType;
use cryptoki::slot::{Limit, Slot, TokenInfo};

use crate::error::HsmError;
use crate::module::Module;
use crate::token::facts::{PinState, TokenFacts, choose};
use crate::token::login::{read_token, see_slots};
use crate::uri::{TokenUri, without_padding};

pub use trial::{KeyTrial, TRIAL_LABEL, try_keys};

/// A module: its library, and its slots.
#[derive(Clone, Debug)]
pub struct ModuleSurvey {
    /// Who made the library, in its own words.
    pub manufacturer: String,
    /// What the library calls itself.
    pub description: String,
    /// Its version.
    pub version: String,
    /// The version of PKCS#11 that it speaks.
    pub cryptoki: String,
    /// Its slots, those without a token among them.
    pub slots: Vec<SlotSurvey>,
}

/// A slot.
#[derive(Clone, Debug)]
pub struct SlotSurvey {
    /// Its number.
    pub id: u64,
    /// What it calls itself.
    pub description: String,
    /// The reader's or the device's firmware.
    pub firmware: String,
    /// The token in it, or why there is nothing to be told of one.
    pub token: Result<TokenSurvey, String>,
}

/// A token, by its own word.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the words of CK_TOKEN_INFO")]
pub struct TokenSurvey {
    pub label: String,
    pub serial: String,
    pub manufacturer: String,
    pub model: String,
    pub firmware: String,
    /// Whether it has a label and PINs; a blank one must be initialised first.
    pub is_initialized: bool,
    pub is_write_protected: bool,
    pub login_required: bool,
    /// The PIN is given at a pad or reader of its own.
    pub has_pad: bool,
    /// What it says of the user PIN.
    pub pin: UserPinState,
    /// Sessions that it allows at once, if it says so.
    pub max_sessions: Option<u64>,
    /// Sorted by name.
    pub mechanisms: Vec<MechanismSurvey>,
}

/// What a token says of its user PIN: what sending one would risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserPinState {
    /// Nothing speaks against a login.
    Good,
    /// Nobody has set it yet.
    NotSet,
    /// A wrong one was tried since the last login.
    CountLow,
    /// One more wrong one locks it.
    FinalTry,
    /// It is locked.
    Locked,
    /// Its user must change it before it is of use.
    ToBeChanged,
}

impl UserPinState {
    /// In words, for people.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Good => "set, no wrong try counted",
            Self::NotSet => "not set: initialise it with the token's own tool",
            Self::CountLow => "a wrong PIN was tried since the last login: log in once by hand with the right one",
            Self::FinalTry => "one more wrong PIN locks it: log in once by hand with the right one",
            Self::Locked => "locked: the security officer must set it anew",
            Self::ToBeChanged => "must be changed by its user before anything else",
        }
    }

    fn of(info: &TokenInfo) -> Self {
        match PinState::of(info) {
            PinState::Locked => Self::Locked,
            PinState::ToBeChanged => Self::ToBeChanged,
            PinState::FinalTry => Self::FinalTry,
            PinState::CountLow => Self::CountLow,
            PinState::Good if !info.token_initialized() || !info.user_pin_initialized() => Self::NotSet,
            PinState::Good => Self::Good,
        }
    }
}

/// What a token says of one mechanism.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MechanismSurvey {
    /// Such as `CKM_ECDSA`.
    pub name: String,
    /// Smallest and largest key, in the unit of the mechanism: bits for EC and RSA. None if it does not say.
    pub key_sizes: Option<[usize; 2]>,
    /// Whether it signs, and whether it makes key pairs.
    pub signs: bool,
    /// See `signs`.
    pub makes_pairs: bool,
    /// Done in hardware, by its own word.
    pub in_hardware: bool,
}

impl ModuleSurvey {
    /// Loads the module and asks it; nobody logs in. Blocks for as long as it needs.
    pub fn of(module_path: &Path) -> Result<Self, HsmError> {
        let module = Module::load(module_path)?;
        let entered = module.enter()?;
        let pkcs11 = entered.pkcs11;
        let library = pkcs11.get_library_info()?;
        let slots = pkcs11.get_all_slots()?.into_iter().map(|slot| SlotSurvey::of(pkcs11, slot));
        Ok(Self {
            manufacturer: without_padding(library.manufacturer_id()).to_owned(),
            description: without_padding(library.library_description()).to_owned(),
            version: library.library_version().to_string(),
            cryptoki: library.cryptoki_version().to_string(),
            slots: slots.collect::<Result<_, HsmError>>()?,
        })
    }

    /// Tokens that could hold keys, each with its slot's number.
    pub fn tokens(&self) -> impl Iterator<Item = (u64, &TokenSurvey)> {
        let tokens = self.slots.iter().filter_map(|slot| Some((slot.id, slot.token.as_ref().ok()?)));
        tokens.filter(|(_, token)| token.is_initialized)
    }

    /// The number of the one slot that `wanted` names. Errors: none, or several.
    pub fn slot_of(module_path: &Path, wanted: &TokenUri) -> Result<u64, HsmError> {
        let module = Module::load(module_path)?;
        let entered = module.enter()?;
        Ok(choose(wanted, &see_slots(entered.pkcs11)?)?.slot_id)
    }
}

impl SlotSurvey {
    fn of(pkcs11: &Pkcs11, slot: Slot) -> Result<Self, HsmError> {
        let info = pkcs11.get_slot_info(slot)?;
        let token = match info.token_present() {
            false => Err("no token in it".to_owned()),
            // As at a login: what cannot be read there cannot be read here.
            true => match read_token(pkcs11, slot) {
                Ok(facts) => TokenSurvey::of(pkcs11, slot, facts),
                Err(unread) => Err(format!("its information cannot be read: {}", unread.reason)),
            },
        };
        Ok(Self {
            id: slot.id(),
            description: without_padding(info.slot_description()).to_owned(),
            firmware: info.firmware_version().to_string(),
            token,
        })
    }
}

impl TokenSurvey {
    /// Whether it lists that mechanism.
    pub fn offers(&self, mechanism: &str) -> bool {
        self.mechanisms.iter().any(|one| one.name == mechanism)
    }

    fn of(pkcs11: &Pkcs11, slot: Slot, facts: TokenFacts) -> Result<Self, String> {
        let failed = |error| HsmError::from(error).to_string();
        let info = pkcs11.get_token_info(slot).map_err(failed)?;
        let mechanisms = pkcs11.get_mechanism_list(slot).map_err(failed)?;
        let mut mechanisms: Vec<_> =
            mechanisms.into_iter().map(|mechanism| MechanismSurvey::of(pkcs11, slot, mechanism)).collect();
        mechanisms.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self {
            label: facts.label,
            serial: facts.serial,
            manufacturer: facts.manufacturer,
            model: facts.model,
            firmware: info.firmware_version().to_string(),
            is_initialized: facts.initialized,
            is_write_protected: info.write_protected(),
            login_required: facts.login_required,
            has_pad: facts.protected_path,
            pin: UserPinState::of(&info),
            max_sessions: match info.max_session_count() {
                Limit::Max(most) => Some(most),
                Limit::Unavailable | Limit::Infinite => None,
            },
            mechanisms,
        })
    }
}

impl MechanismSurvey {
    /// A mechanism that tells nothing of itself is there all the same.
    fn of(pkcs11: &Pkcs11, slot: Slot, mechanism: MechanismType) -> Self {
        let info = pkcs11.get_mechanism_info(slot, mechanism).ok();
        let says = |of: fn(&cryptoki::mechanism::MechanismInfo) -> bool| info.as_ref().is_some_and(of);
        Self {
            name: mechanism.to_string(),
            key_sizes: info
                .as_ref()
                .map(|info| [info.min_key_size(), info.max_key_size()])
                .filter(|sizes| sizes[1] > 0),
            signs: says(|info| info.sign()),
            makes_pairs: says(|info| info.generate_key_pair()),
            in_hardware: says(|info| info.hardware()),
        }
    }
}
