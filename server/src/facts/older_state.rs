//! That a database is older than what was in its place before, and how that is known.

use std::fmt;

use ironroot_api::utc;
use serde::{Deserialize, Serialize};

/// A database that is older than what was here before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OlderState {
    /// When it was noticed, UNIX seconds.
    pub noticed_at: i64,
    /// How it is known.
    pub evidence: Evidence,
    /// When the operator accepted it, UNIX seconds; none: issuing waits for that.
    pub accepted_at: Option<i64>,
}

/// How it is known that a database is older.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Evidence {
    /// A backup was put back.
    Restored {
        /// When the backup was made, UNIX seconds.
        made_at: i64,
        /// How far the database had come in it.
        revision: i64,
    },
    /// The mark beside it says that it had come further, or that another one had come as far.
    Mark {
        /// The mark's file.
        path: String,
        /// How far it had come.
        marked: i64,
        /// How far it has come now.
        revision: i64,
    },
    /// The issuance log beside it says that it had come further.
    Log {
        /// How far it had come.
        logged: i64,
        /// How far it has come now.
        revision: i64,
    },
    /// A running server had followed its changes further, or those of another history.
    Followed {
        /// How far.
        followed: i64,
        /// How far it has come now.
        revision: i64,
    },
    /// An agent keeps a signed head of the issuance log that this server's log does not have.
    Head {
        /// The agent.
        agent: String,
        /// How many records that head has.
        shown: u64,
        /// How many this server's log has.
        sequence: u64,
        /// The head's epoch; 0: nobody kept it.
        #[serde(default)]
        epoch: u64,
    },
    /// The key manager has another key in the place of the one that the CA's journal means: it was made later.
    Key {
        /// The place.
        slot: String,
        /// What the key is called.
        key: String,
    },
}

impl OlderState {
    /// Up to which epoch heads of the issuance log count no more, once the operator has accepted it.
    pub fn given_up_epoch(&self) -> Option<u64> {
        let epoch = if let Evidence::Head { epoch, .. } = self.evidence { epoch } else { 0 };
        (!self.waits()).then_some(epoch)
    }

    /// Whether issuing waits for the operator's word.
    pub fn waits(&self) -> bool {
        self.accepted_at.is_none()
    }
}

/// The rest of a sentence that begins with "the database".
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restored { made_at, revision } => {
                write!(f, "is a backup of {} (revision {revision}) that was put back", utc(*made_at))
            }
            Self::Mark { path, marked, revision } => {
                write!(
                    f,
                    "is at revision {revision}, and the mark {path} says that it was another one, at revision {marked}"
                )
            }
            Self::Log { logged, revision } => write!(
                f,
                "is at revision {revision}, and the issuance log beside it says that it had come to revision {logged}"
            ),
            Self::Followed { followed, revision } => write!(
                f,
                "is at revision {revision}, and what a server had followed to revision {followed} is not in it: a standby without the last commits \
                 may have taken over"
            ),
            Self::Head { agent, shown, sequence, epoch: _ } => write!(
                f,
                "and the issuance log, which has {sequence} records, are not those of which agent {agent} keeps a signed head with {shown} records"
            ),
            Self::Key { slot, key } => {
                write!(f, "is older than key {key} of slot {slot}, which was made after it")
            }
        }
    }
}

/// For the log, for `healthcheck`: what is the case, and what to do.
impl fmt::Display for OlderState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.waits() {
            return write!(
                f,
                "an operator has accepted an older state meanwhile, and the next start goes on with it: the database {}",
                self.evidence
            );
        }
        write!(
            f,
            "nothing is issued until an operator accepts an older state: the database {}; put a newer one in its place, or, as the server's \
             user: ironroot-server restore accept -config FILE",
            self.evidence
        )
    }
}
