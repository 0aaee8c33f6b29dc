//! How a private key must be protected. The token's word is all there is: PKCS#11 has no key attestation.
//!
//! Source: OASIS PKCS #11 v2.40 §4.9.

use cryptoki::object::{Attribute, AttributeType};

/// What every private key must say of itself.
pub(crate) const REQUIRED: [(AttributeType, bool, &str); 5] = [
    (AttributeType::Private, true, "CKA_PRIVATE"),
    (AttributeType::Sensitive, true, "CKA_SENSITIVE"),
    (AttributeType::Extractable, false, "CKA_EXTRACTABLE"),
    (AttributeType::AlwaysSensitive, true, "CKA_ALWAYS_SENSITIVE"),
    (AttributeType::NeverExtractable, true, "CKA_NEVER_EXTRACTABLE"),
];

/// The attributes to read.
pub(super) const ATTRIBUTES: [AttributeType; 7] = [
    AttributeType::Private,
    AttributeType::Sensitive,
    AttributeType::Extractable,
    AttributeType::AlwaysSensitive,
    AttributeType::NeverExtractable,
    AttributeType::Local,
    AttributeType::AlwaysAuthenticate,
];

/// What the token says of a private key, once it says enough.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Protected {
    /// It says that the key was made inside. Not required: a key that was always sensitive and never extractable cannot have
    /// come from outside, and some tokens (Nitrokey NetHSM) say CKA_LOCAL = false of every private key.
    pub(super) says_local: bool,
}

/// Why a key cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shortcoming {
    /// This attribute has the wrong value or none.
    Unprotected(String),
    /// The token wants the PIN again for each signature.
    AlwaysAuthenticate,
}

/// Judges a private key by the attributes that the token told.
pub(super) fn judge(told: &[Attribute]) -> Result<Protected, Shortcoming> {
    let value = |kind: AttributeType| told.iter().find(|a| a.attribute_type() == kind).and_then(flag);
    for (kind, wanted, name) in REQUIRED {
        match value(kind) {
            Some(found) if found == wanted => {}
            Some(found) => return Err(Shortcoming::Unprotected(format!("{name} is {found}"))),
            None => return Err(Shortcoming::Unprotected(format!("the token does not tell {name}"))),
        }
    }
    if value(AttributeType::AlwaysAuthenticate) == Some(true) {
        return Err(Shortcoming::AlwaysAuthenticate);
    }
    Ok(Protected { says_local: value(AttributeType::Local) == Some(true) })
}

fn flag(attribute: &Attribute) -> Option<bool> {
    match attribute {
        Attribute::Private(v)
        | Attribute::Sensitive(v)
        | Attribute::Extractable(v)
        | Attribute::AlwaysSensitive(v)
        | Attribute::NeverExtractable(v)
        | Attribute::AlwaysAuthenticate(v)
        | Attribute::Local(v) => Some(*v),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Vec<Attribute> {
        vec![
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::AlwaysSensitive(true),
            Attribute::NeverExtractable(true),
        ]
    }

    #[test]
    fn a_key_that_is_not_known_to_be_local_is_taken_and_told() {
        for (more, says_local) in
            [(vec![Attribute::Local(true)], true), (vec![Attribute::Local(false)], false), (vec![], false)]
        {
            assert_eq!(judge(&[good(), more].concat()), Ok(Protected { says_local }));
        }
    }

    //= FLT-H7
    #[test]
    fn each_other_word_is_required_and_must_be_right() {
        for (place, (_, wanted, name)) in REQUIRED.into_iter().enumerate() {
            let mut untold = good();
            untold.remove(place);
            assert_eq!(judge(&untold), Err(Shortcoming::Unprotected(format!("the token does not tell {name}"))));
            let wrong = match good()[place] {
                Attribute::Private(v) => Attribute::Private(!v),
                Attribute::Sensitive(v) => Attribute::Sensitive(!v),
                Attribute::Extractable(v) => Attribute::Extractable(!v),
                Attribute::AlwaysSensitive(v) => Attribute::AlwaysSensitive(!v),
                _ => Attribute::NeverExtractable(false),
            };
            let mut told = good();
            told[place] = wrong;
            assert_eq!(judge(&told), Err(Shortcoming::Unprotected(format!("{name} is {}", !wanted))));
        }
        let told = [good(), vec![Attribute::AlwaysAuthenticate(true)]].concat();
        assert_eq!(judge(&told), Err(Shortcoming::AlwaysAuthenticate));
    }
}
