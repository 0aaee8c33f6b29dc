//! The endorsement keys that makers certify, and which of them a chip uses.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A kind of endorsement key: a template of the TCG EK Credential Profile (2.5, Annex B.3 and B.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndorsementKind {
    /// Template L-2. Ten times faster than RSA on real chips.
    P256,
    /// Template L-1.
    Rsa2048,
    /// Template H-3.
    P384,
    /// Template H-6.
    Rsa3072,
    /// Template H-7.
    Rsa4096,
}

/// Not a kind of endorsement key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no kind of endorsement key: use auto, p256, rsa2048, p384, rsa3072 or rsa4096")]
pub struct UnknownEndorsementKind(String);

impl EndorsementKind {
    /// In the order in which a certificate is looked for. RSA-2048 comes before P-384: chips have had both for years, and
    /// those were enrolled by the former.
    pub const ALL: [EndorsementKind; 5] = [
        EndorsementKind::P256,
        EndorsementKind::Rsa2048,
        EndorsementKind::P384,
        EndorsementKind::Rsa3072,
        EndorsementKind::Rsa4096,
    ];

    /// Where the profile puts the certificate (§2.2.1.4, §2.2.1.5).
    pub(super) const fn certificate_index(self) -> u32 {
        match self {
            EndorsementKind::Rsa2048 => 0x01c0_0002,
            EndorsementKind::P256 => 0x01c0_000a,
            EndorsementKind::P384 => 0x01c0_0016,
            EndorsementKind::Rsa3072 => 0x01c0_001c,
            EndorsementKind::Rsa4096 => 0x01c0_001e,
        }
    }

    /// Where the key is if somebody made it persistent (Registry of Reserved TPM 2.0 Handles §2.3.2).
    pub(super) const fn persistent_handle(self) -> u32 {
        match self {
            EndorsementKind::Rsa2048 => 0x8101_0001,
            EndorsementKind::P256 => 0x8101_0002,
            EndorsementKind::P384 => 0x8101_0016,
            EndorsementKind::Rsa3072 => 0x8101_001c,
            EndorsementKind::Rsa4096 => 0x8101_001e,
        }
    }

    /// Whether its policy is PolicyB-SHA384, else it is PolicyA-SHA256 (Annex B.6).
    pub(super) const fn has_policy_b(self) -> bool {
        !matches!(self, EndorsementKind::P256 | EndorsementKind::Rsa2048)
    }

    const fn name(self) -> &'static str {
        match self {
            EndorsementKind::P256 => "p256",
            EndorsementKind::Rsa2048 => "rsa2048",
            EndorsementKind::P384 => "p384",
            EndorsementKind::Rsa3072 => "rsa3072",
            EndorsementKind::Rsa4096 => "rsa4096",
        }
    }
}

impl fmt::Display for EndorsementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EndorsementKind {
    type Err = UnknownEndorsementKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownEndorsementKind(text.chars().take(32).collect());
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(unknown)
    }
}

/// What an operator says about the endorsement key. As text: `auto`, or the name of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndorsementChoice {
    /// The kind that the maker certified.
    #[default]
    Auto,
    /// This kind, whatever certificates there are.
    Only(EndorsementKind),
}

impl FromStr for EndorsementChoice {
    type Err = UnknownEndorsementKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Only) }
    }
}

/// The endorsement key that this device was known by when it last attested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RememberedEndorsement {
    /// Which template makes the key again.
    pub kind: EndorsementKind,
    /// SHA-256 of its DER SubjectPublicKeyInfo.
    pub ek_sha256: [u8; 32],
}

/// Decides. `remembered`: a kind whose key is the one that this device was known by. `certified`: whether there is a
/// certificate in the chip that fits the key of a kind; asked in the order of [`EndorsementKind::ALL`], only as far as
/// needed, since making a key takes seconds on slow chips.
///
/// A device keeps its name: what anybody may define in the chip later on changes nothing for one that has attested.
pub(super) fn decide<E>(
    choice: EndorsementChoice,
    remembered: Option<EndorsementKind>,
    mut certified: impl FnMut(EndorsementKind) -> Result<bool, E>,
) -> Result<EndorsementKind, E> {
    if let EndorsementChoice::Only(kind) = choice {
        return Ok(kind);
    }
    if let Some(kind) = remembered {
        return Ok(kind);
    }
    for kind in EndorsementKind::ALL {
        if certified(kind)? {
            return Ok(kind);
        }
    }
    Ok(EndorsementKind::P256)
}

#[cfg(test)]
mod tests {
    use super::EndorsementKind::{P256, P384, Rsa2048, Rsa4096};
    use super::*;

    fn decided(
        choice: EndorsementChoice,
        remembered: Option<EndorsementKind>,
        certified: &[EndorsementKind],
    ) -> EndorsementKind {
        decide(choice, remembered, |kind| Ok::<_, ()>(certified.contains(&kind))).expect("no error")
    }

    #[test]
    fn a_setting_wins_then_memory_then_a_certificate() {
        let (auto, only) = (EndorsementChoice::Auto, EndorsementChoice::Only(P384));
        for (choice, remembered, certified, expected) in [
            (auto, None, &[][..], P256),
            (auto, None, &[P256, Rsa2048], P256),
            (auto, None, &[Rsa2048, P384], Rsa2048),
            (auto, None, &[P384], P384),
            (auto, None, &[Rsa4096], Rsa4096),
            (auto, Some(Rsa2048), &[P256], Rsa2048),
            (auto, Some(P256), &[Rsa2048], P256),
            (only, Some(Rsa2048), &[P256], P384),
        ] {
            assert_eq!(decided(choice, remembered, certified), expected, "{choice:?} {remembered:?} {certified:?}");
        }
    }

    #[test]
    fn no_key_is_made_once_the_kind_is_known() {
        let never = |kind| -> Result<bool, EndorsementKind> { Err(kind) };
        assert_eq!(decide(EndorsementChoice::Only(Rsa2048), None, never), Ok(Rsa2048));
        assert_eq!(decide(EndorsementChoice::Auto, Some(P384), never), Ok(P384));
        let mut asked = Vec::new();
        let kind = decide(EndorsementChoice::Auto, None, |kind| {
            asked.push(kind);
            Ok::<_, ()>(kind == Rsa2048)
        });
        assert_eq!((kind, asked), (Ok(Rsa2048), vec![P256, Rsa2048]));
    }

    #[test]
    fn kinds_have_names() {
        for kind in EndorsementKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(EndorsementChoice::Only(kind)));
        }
        assert_eq!("auto".parse(), Ok(EndorsementChoice::Auto));
        assert!("rsa".parse::<EndorsementChoice>().is_err());
        assert!("auto".parse::<EndorsementKind>().is_err());
    }
}
