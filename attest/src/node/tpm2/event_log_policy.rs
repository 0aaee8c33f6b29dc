//! What a server wants of a device's boot log.

use std::fmt;
use std::str::FromStr;

/// Whether the log of what was booted is asked for, and what a device is worth whose log does not fit its chip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventLogPolicy {
    /// It is not asked for.
    Ignored,
    /// It is asked for; one that lies counts as none.
    Lenient,
    /// It is asked for; a device without one attests, one whose log lies is refused.
    #[default]
    Verified,
    /// Nobody attests without one.
    Required,
}

impl EventLogPolicy {
    /// All, from the least to the most demanding.
    pub const ALL: [Self; 4] = [Self::Ignored, Self::Lenient, Self::Verified, Self::Required];

    const fn name(self) -> &'static str {
        match self {
            Self::Ignored => "ignored",
            Self::Lenient => "lenient",
            Self::Verified => "verified",
            Self::Required => "required",
        }
    }
}

impl fmt::Display for EventLogPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EventLogPolicy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|policy| policy.name() == text);
        found.ok_or("use ignored (never asked for), lenient (a log that lies counts as none), verified (it is refused) or required")
    }
}
