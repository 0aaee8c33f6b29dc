//! PostgreSQL's codes as what an operator can act on.
//!
//! Source: PostgreSQL, appendix A, "PostgreSQL Error Codes".

use std::sync::Arc;

use tokio_postgres::error::SqlState;

use crate::store::StoreError;

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(code) = error.code() else { return Self::Unreachable(Arc::new(error)) };
        match *code {
            SqlState::DISK_FULL => Self::Full(Arc::new(error)),
            SqlState::READ_ONLY_SQL_TRANSACTION => Self::ReadOnly,
            SqlState::LOCK_NOT_AVAILABLE => Self::Locked,
            SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => Self::Corrupt(error.to_string()),
            _ if turns_us_away(code) => Self::Unreachable(Arc::new(error)),
            _ => Self::Sql(Arc::new(error)),
        }
    }
}

/// What a server says that ends our connection, or does not begin one.
fn turns_us_away(code: &SqlState) -> bool {
    const CLASSES: [&str; 5] = [
        "08", // connection exceptions
        "28", // authorization
        "3D", // no such database
        "53", // too many connections, out of memory
        "57", // shut down, starting up, cancelled
    ];
    CLASSES.iter().any(|class| code.code().starts_with(class))
}

/// Whether a connection that has said this is given up for a new one: it is over, it leads to a server that may not write any more, or
/// the transaction is worth another try.
pub(super) fn ends_connection(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(|code| {
        let tried_again = [
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            // A plan whose tables were migrated meanwhile.
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        ];
        tried_again.contains(code) || turns_us_away(code)
    })
}
