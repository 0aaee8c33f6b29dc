//! A server's name is a lock that its session holds; which session holds it, another server's or one of ours of before.
//!
//! A session outlives its connection: one that was frozen, or is in the middle of a statement, notices later that nobody is there. Each
//! open database has a name of its own for its sessions, so that what holds the lock is known for ours, and ended.

use aws_lc_rs::digest::{SHA256, digest};

use super::Connection;
use crate::store::StoreError;
use crate::store::sql::Row;

/// Who holds the lock, and how many of them are ours; those are ended. A commit that a standby has not confirmed would be taken for one
/// by that, so it is let be.
const END_OWN: &str = "SELECT count(*)::bigint, count(CASE WHEN held.is_own THEN 1 END)::bigint, \
    count(CASE WHEN held.is_own AND held.wait_event IS DISTINCT FROM 'SyncRep' THEN pg_terminate_backend(held.pid) END)::bigint \
    FROM (SELECT a.pid, a.wait_event, a.application_name = current_setting('application_name') AS is_own \
          FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
          WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND a.pid <> pg_backend_pid() \
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
          AND ((l.classid::bigint << 32) | l.objid::bigint) = ?1) AS held";

/// Whose a server's name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// This connection's.
    Ours,
    /// That of a session of ours, which was told to end or just has: to be asked for again.
    OwnBefore,
    /// Another server's, or that of a process of this server before this one.
    Another,
}

/// Takes the server's name if no other connection has it now. The lock ends with the connection.
pub(super) fn try_claim(connection: &Connection, server: &str) -> Result<Claim, StoreError> {
    let hash = digest(&SHA256, format!("ironroot-server {server}").as_bytes());
    let number = hash.as_ref().iter().take(8).fold(0_i64, |number, byte| (number << 8) | i64::from(*byte));
    let (mut is_ours, mut held, mut held_by_us) = (false, 0_i64, 0_i64);
    connection.each("SELECT pg_try_advisory_lock(?1)", &[&number], &mut |row| {
        is_ours = Row::Postgres(row).get(0)?;
        Ok(())
    })?;
    if is_ours {
        return Ok(Claim::Ours);
    }
    let ended = connection.each(END_OWN, &[&number], &mut |row| {
        (held, held_by_us) = (Row::Postgres(row).get(0)?, Row::Postgres(row).get(1)?);
        Ok(())
    });
    match ended {
        // A database that does not tell its locks.
        Err(_) if connection.broken().is_none() => Ok(Claim::Another),
        ended => ended.map(|()| if held == 0 || held_by_us > 0 { Claim::OwnBefore } else { Claim::Another }),
    }
}
