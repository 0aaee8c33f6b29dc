//! What a database holds, counted.

use super::Facts;
use crate::store::{StoreError, Summary};

impl Facts<'_> {
    /// Counts of what it holds. `schema`: the version of its tables.
    pub(in crate::store) fn summary(&self, schema: i64) -> Result<Summary, StoreError> {
        let count = |what: &str| self.sql.one(&format!("SELECT count(*) FROM {what}"), &[], |row| row.get(0));
        Ok(Summary {
            schema,
            revision: self.revision()?,
            entries: count("entries")?,
            agents: count("agents")?,
            banned_agents: count("agents WHERE banned")?,
            devices: count("devices")?,
            banned_devices: count("devices WHERE state = 'banned'")?,
            join_tokens: count("join_tokens")?,
        })
    }
}
