//! Whether the database is older than what was here before.

use serde::{Deserialize, Serialize};

use super::{Facts, Row, Transaction};
use crate::facts::older_state::{Evidence, OlderState};
use crate::store::feed::Position;
use crate::store::{Changed, StoreError};

/// As the column has it.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    evidence: Evidence,
    /// How far the database had come when a server began with what was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled: Option<i64>,
}

impl Facts<'_> {
    /// That it is older, if that was noticed and is not settled.
    pub fn older_state(&self) -> Result<Option<OlderState>, StoreError> {
        let noted = self.noted_older_state()?;
        Ok(noted.filter(|(_, settled)| settled.is_none()).map(|(older, _)| older))
    }

    /// What was accepted last, and how far the database had come when a server began with that: who was away meanwhile finds it here.
    pub fn settled_older_state(&self) -> Result<Option<(OlderState, i64)>, StoreError> {
        Ok(self.noted_older_state()?.and_then(|(older, settled)| Some((older, settled?))))
    }

    fn noted_older_state(&self) -> Result<Option<(OlderState, Option<i64>)>, StoreError> {
        let select = "SELECT noticed_at, evidence, accepted_at FROM older_state";
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get::<String>(1)?, row.get(2)?));
        let Some((noticed_at, evidence, accepted_at)) = self.sql.first(select, &[], row)? else {
            return Ok(None);
        };
        let damaged = |why: serde_json::Error| StoreError::Corrupt(format!("older_state: {why}"));
        let Stored { evidence, settled } = serde_json::from_str(&evidence).map_err(damaged)?;
        Ok(Some((OlderState { noticed_at, evidence, accepted_at }, settled)))
    }

    /// The newest row of the change log: its revision, and the random ID that tells it from another history's.
    pub fn place(&self) -> Result<(i64, [u8; 16]), StoreError> {
        let Position { revision, id } = self.log_end()?;
        Ok((revision, id))
    }

    /// The random ID of that row of the change log, if it is still there.
    pub fn id_at(&self, revision: i64) -> Result<Option<[u8; 16]>, StoreError> {
        let select = "SELECT id FROM changes WHERE revision = ?1";
        self.sql.first(select, &[&revision], |row| row.get(0))
    }
}

impl Transaction<'_> {
    /// It is older, and issuing waits for the operator's word. What was noticed before, and waits, stays as it is.
    pub fn note_older_state(&self, evidence: &Evidence, now_unix: i64) -> Result<(), StoreError> {
        let note = r#"INSERT INTO older_state ("only", noticed_at, evidence) VALUES (1, ?1, ?2)
                    ON CONFLICT ("only") DO UPDATE SET
                        noticed_at = excluded.noticed_at, evidence = excluded.evidence, accepted_at = NULL
                    WHERE older_state.accepted_at IS NOT NULL"#;
        let evidence = stored(&Stored { evidence: evidence.clone(), settled: None });
        if self.sql.execute(note, &[&now_unix, &evidence])? > 0 {
            self.note(Changed::OlderState);
        }
        Ok(())
    }

    /// The operator accepts it; false if nothing waits for that.
    pub fn accept_older_state(&self, now_unix: i64) -> Result<bool, StoreError> {
        let accept = "UPDATE older_state SET accepted_at = ?1 WHERE accepted_at IS NULL";
        Ok(self.sql.execute(accept, &[&now_unix])? == 1)
    }

    /// The server has begun with what was accepted. It stays noted, as what is settled, until another is noticed.
    pub fn settle_older_state(&self) -> Result<(), StoreError> {
        let Some(older) = self.older_state()?.filter(|older| !older.waits()) else { return Ok(()) };
        let evidence = stored(&Stored { evidence: older.evidence, settled: Some(self.place()?.0) });
        self.sql.execute("UPDATE older_state SET evidence = ?1 WHERE accepted_at IS NOT NULL", &[&evidence])?;
        Ok(())
    }
}

fn stored(stored: &Stored) -> String {
    serde_json::to_string(stored).expect("texts and numbers are JSON")
}
