//! Why the CA does not start or does not sign.

use ironroot_api::utc;
use ironroot_hsm::{HsmError, KeyName};
use thiserror::Error;

use super::issuer::MAX_INTERMEDIATES;
use super::journal::{JournalError, MAX_USED_KEYS, Place};
use super::jwt::JwtError;
use super::key_stock::is_about_the_key;
use super::lint::LintError;
use super::profile::ProfileError;
use super::purpose::Purpose;
use super::server_name::ServerName;
use super::upstream::UpstreamError;
use crate::facts::older_state::Evidence;
use crate::keys::KeyError;
use crate::store::StoreError;

/// Why the CA does not start or does not sign.
#[derive(Debug, Error)]
pub enum CaError {
    /// The token does not answer, or refuses.
    #[error("the PKCS#11 token failed")]
    Token(#[from] HsmError),
    /// The key manager fails that is no token.
    #[error("the key manager failed")]
    Keys(#[source] KeyError),
    /// The data store does not give the journal, or does not take it.
    #[error("the CA journal cannot be read or written")]
    Store(#[from] StoreError),
    /// What the journal says.
    #[error("the CA journal is unusable")]
    Journal(#[from] JournalError),
    /// The active CA's key is not in the key manager.
    #[error(
        "the key of the active CA (slot {slot}, {key}) is missing: restore what held it, the token or the file keys_path names, from its \
         backup; if the CA moves to another key manager, name the one before in a second KeyManager block with previous = true; if the key \
         is lost for good, add KeyManager \"memory\" with previous = true: then a new CA signs at once, the old root stays in the trust \
         bundle, and agents have to be given the new one; nothing is deleted from the data store for that"
    )]
    KeyLost {
        /// Which authority's key it was.
        slot: Place,
        /// What the key is called.
        key: KeyName,
    },
    /// The key of a prepared authority is not in the token.
    #[error(
        "the key of what was prepared in slot {slot} ({key}) is not in the token any more: check the token, and prepare another"
    )]
    PreparedLost {
        /// Which authority's key it was.
        slot: Place,
        /// What the key is called.
        key: KeyName,
    },
    /// The active CA's key is in the key manager that the CA moves away from, and that cannot be opened.
    #[error(
        "the key of the active CA (slot {slot}, {key}) is not in the key manager that makes keys now, and the one before (previous = true) \
         cannot be opened: make it reachable until the CA has moved; if it is gone for good, put KeyManager \"memory\" with previous = \
         true in its place: then a new CA signs at once, and agents have to be given the new trust bundle"
    )]
    FormerUnreachable {
        /// Which authority's key it was.
        slot: Place,
        /// What the key is called.
        key: KeyName,
    },
    /// The key of the root is not in the token. What is signed already is good.
    #[error(
        "the key of the root (slot {slot}, {key}) is not in the token, so no new CA can be signed, and the present one ends \
         soon: restore the token from its backup; if the key is lost for good, set enabled = false in the root block and give \
         every agent the new trust bundle"
    )]
    RootLost {
        /// Which root's key it was.
        slot: Place,
        /// What the key is called.
        key: KeyName,
    },
    /// The key of a root that does not sign now is not in the token.
    #[error(
        "the key of a root that does not sign now (slot {slot}, {key}) is not in the token; the root that signs CAs goes on until {}: \
         restore the token from its backup before that; if the key is lost for good, set enabled = false in the root block before \
         that and give every agent the new trust bundle",
        utc(*until_unix)
    )]
    IdleRootLost {
        /// Which root's key it was.
        slot: Place,
        /// What the key is called.
        key: KeyName,
        /// When the root that signs ends, UNIX seconds.
        until_unix: i64,
    },
    /// No root is valid now.
    #[error("this server's clock says {}, and no root certificate is valid then: correct the clock", utc(*now))]
    NoRootValid {
        /// The time, UNIX seconds.
        now: i64,
    },
    /// There is no root yet, or the one that there is does not sign yet.
    #[error(
        "no CA can be signed before there is a root that signs, and what keeps that from being there is told beside this"
    )]
    NoRoot,
    /// The key in the token is not the one the journal speaks of.
    #[error(
        "the key in slot {slot} ({key}) is not the one the CA journal names: the token and the data store are from \
         different times or servers; restore the one that is wrong from its backup"
    )]
    KeyMismatch {
        /// Which authority's key the journal means.
        slot: Place,
        /// What the key is called.
        key: KeyName,
    },
    /// The token holds our keys but the database does not know them.
    #[error(
        "the token holds a key for slot {slot} ({key}) that the CA journal in the data store does not know: restore the \
         data store from its latest backup; if another server of this trust domain uses the token, give each its server_name; if \
         the key is not in use anywhere, delete it (pkcs11-tool --delete-object, both halves)"
    )]
    KeyWithoutJournal {
        /// Which place the key was made for, by its name.
        slot: Place,
        /// What the key is called.
        key: KeyName,
    },
    /// The data store has a CA, and it is not one of this server's name: another one would lock out all who know that one only.
    #[error(
        "the data store holds the CA of server_name {}, and this server is {}: the CA goes on only under the name that it has, so \
         set server_name to that; to found another CA on purpose, give the server a data store of its own (connection_string), and \
         give every agent the new trust bundle",
        names(found),
        own_name(server)
    )]
    OtherServersCa {
        /// Whose CA is there.
        found: Vec<ServerName>,
        /// What this server is called.
        server: ServerName,
    },
    /// Keys are an administrator's, and each was used or cannot be.
    #[error(
        "no key is free for slot {slot}: of the {listed} that key_ids and key_labels name, each was used before, is missing or cannot \
         be used (the log says which); have the HSM's administrator make P-256 keys that are sensitive, not extractable and may sign, \
         name them there, and restart the server"
    )]
    NoFreeKey {
        /// The place that is to be filled.
        slot: Place,
        /// How many keys are named.
        listed: usize,
    },
    /// More keys of an administrator were used than are remembered.
    #[error(
        "{MAX_USED_KEYS} keys of the HSM's administrator were used, and no more are remembered: use another data store and token"
    )]
    TooManyUsedKeys,
    /// There is no CA yet, and the clock cannot be right.
    #[error(
        "this server's clock says {}: that cannot be right, and a CA that began then would never be valid; correct the clock \
         and start again",
        utc(*now)
    )]
    ClockAtFounding {
        /// The time, UNIX seconds.
        now: i64,
    },
    /// No key of the CA is at hand.
    #[error("no CA key is at hand; see the errors before this one")]
    NothingSigns,
    /// The plan asks for one step after the other without an end.
    #[error("CA rotation does not settle; report this with the log")]
    Unsettled,
    /// The certificate cannot be composed.
    #[error("the certificate cannot be composed")]
    Profile(#[from] ProfileError),
    /// A certificate or a token was signed that must not leave.
    #[error("what was signed failed its check and was withheld")]
    Lint(#[from] LintError),
    /// No JWT-SVID can be signed.
    #[error("no JWT-SVID can be signed")]
    Jwt(#[from] JwtError),
    /// The authority above.
    #[error("the authority above this server has not certified its CA")]
    Upstream(#[from] UpstreamError),
    /// The CA that a server below asks for would be too far from its root.
    #[error(
        "{MAX_INTERMEDIATES} CAs are between SVIDs of this server and their root, and verifiers take no more: no server can be below \
         this one"
    )]
    TooManyTiers,
    /// A signing task ended early.
    #[error("a signing task ended early")]
    Interrupted,
}

impl CaError {
    /// Whether one key is at fault, so that another may do, and not the token or the data store.
    pub(super) fn is_about_a_key(&self) -> bool {
        match self {
            Self::RootLost { .. } | Self::KeyMismatch { .. } => true,
            Self::Token(error) => is_about_the_key(error),
            Self::Keys(error) => matches!(error, KeyError::Kind { .. }),
            _ => false,
        }
    }

    /// Whether the key that was found is of another kind than the one that was looked for, and so another one.
    pub(super) fn is_of_another_kind(&self) -> bool {
        matches!(self, Self::Token(HsmError::KeyOfAnotherKind { .. }) | Self::Keys(KeyError::Kind { .. }))
    }

    /// Whether one key is damaged, or not as protected as it must be, and so of no use whose ever it is.
    pub(super) fn is_about_an_unfit_key(&self) -> bool {
        matches!(self, Self::Token(error) if is_about_the_key(error)) && !self.is_of_another_kind()
    }

    /// How it is known that the journal is older than the key manager, where that is what is wrong, and where the CA can go on without the
    /// key.
    pub fn shows_an_older_journal(&self) -> Option<Evidence> {
        match self {
            Self::KeyMismatch { slot, key } | Self::KeyWithoutJournal { slot, key }
                if slot.purpose != Purpose::Root =>
            {
                Some(Evidence::Key { slot: slot.to_string(), key: key.to_string() })
            }
            _ => None,
        }
    }

    /// Whether nothing has failed: the root has to certify a CA, and is not here.
    pub(crate) fn awaits_root(&self) -> bool {
        matches!(self, Self::Upstream(UpstreamError::AwaitsRoot { .. }))
    }

    /// The same where another root, which ends then (UNIX seconds), signs CAs meanwhile.
    pub(super) fn while_a_root_signs_until(self, until_unix: i64) -> Self {
        match self {
            Self::RootLost { slot, key } => Self::IdleRootLost { slot, key, until_unix },
            other => other,
        }
    }
}

impl From<KeyError> for CaError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Token(error) => Self::Token(error),
            other => Self::Keys(other),
        }
    }
}

fn names(servers: &[ServerName]) -> String {
    let quoted: Vec<_> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    quoted.join(" or ")
}

fn own_name(server: &ServerName) -> String {
    if server.is_unnamed() { "without a server_name".to_owned() } else { format!("\"{server}\"") }
}
