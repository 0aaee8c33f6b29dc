//! Why a device is banned, and what was seen of it.

use serde::{Deserialize, Serialize};

use ironroot_api::pb::device as pb;

/// The decision to shut a device out. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// When, UNIX seconds.
    pub at: i64,
    /// Who decided it, or what was seen.
    pub reason: BanReason,
}

/// Why a device was banned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BanReason {
    /// An administrator decided it: `local`, or an ID and its address.
    Administrator {
        /// `local`, or the administrator's SPIFFE ID and its address.
        by: String,
    },
    /// Two chips answered to its name: one of them is a copy.
    RunsTwice {
        /// What the two did that one alone cannot do, in the order of time.
        sightings: [Sighting; 2],
    },
}

/// Somebody who answered to the name of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// When, UNIX seconds.
    pub at: i64,
    /// From which address and port.
    pub address: String,
    /// What it did, as the end of a sentence that begins with its address.
    pub what: String,
}

impl Ban {
    pub(super) fn to_pb(&self) -> pb::Ban {
        let (reason, by, sightings) = match &self.reason {
            BanReason::Administrator { by } => (pb::ban::Reason::Administrator, by.clone(), Vec::new()),
            BanReason::RunsTwice { sightings } => {
                (pb::ban::Reason::RunsTwice, String::new(), sightings.iter().map(Sighting::to_pb).collect())
            }
        };
        pb::Ban { at: self.at, reason: reason.into(), by, sightings }
    }
}

impl Sighting {
    fn to_pb(&self) -> pb::ban::Sighting {
        pb::ban::Sighting { at: self.at, address: self.address.clone(), what: self.what.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Databases hold this text.
    #[test]
    fn the_stored_form_of_a_ban_stays_as_it_is() {
        let sighting = |at, address: &str, what: &str| Sighting { at, address: address.into(), what: what.into() };
        let sightings = [sighting(5, "10.0.0.1:4000", "did this"), sighting(6, "[::1]:5", "did that")];
        for (ban, stored) in [
            (
                Ban { at: 7, reason: BanReason::Administrator { by: "local".into() } },
                r#"{"at":7,"reason":{"administrator":{"by":"local"}}}"#,
            ),
            (
                Ban { at: 7, reason: BanReason::RunsTwice { sightings } },
                concat!(
                    r#"{"at":7,"reason":{"runs_twice":{"sightings":[{"at":5,"address":"10.0.0.1:4000","what":"did this"},"#,
                    r#"{"at":6,"address":"[::1]:5","what":"did that"}]}}}"#
                ),
            ),
        ] {
            assert_eq!(serde_json::to_string(&ban).expect("JSON"), stored);
            assert_eq!(serde_json::from_str::<Ban>(stored).expect("a ban"), ban);
        }
    }
}
