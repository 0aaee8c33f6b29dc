//! Whether a device must meet a policy to attest.

use std::str::FromStr;

/// What becomes of a device whose boot meets no policy that is about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootPolicy {
    /// It attests, without the selector of any policy.
    #[default]
    Observe,
    /// It is refused.
    Enforce,
}

impl FromStr for BootPolicy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "observe" => Ok(Self::Observe),
            "enforce" => Ok(Self::Enforce),
            _ => Err("use observe (a device that meets no policy lacks its selectors) or enforce (it is refused)"),
        }
    }
}
