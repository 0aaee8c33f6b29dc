//! What an operator has said of an authority: what the plan by itself never says.

use serde::{Deserialize, Serialize};

/// What an operator has said of an authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing: the plan alone decides about its life.
    #[default]
    None,
    /// It was replaced before its time. What it signed is good, and its key is not certified again.
    Replaced,
    /// Its key is in other hands: it signs nothing, and what it signed is replaced.
    Tainted,
}

impl Verdict {
    /// Whether nobody has said anything.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}
