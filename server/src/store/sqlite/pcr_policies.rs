//! What devices may have booted.

use rusqlite::OptionalExtension;

use super::{Facts, Transaction};
use crate::facts::pcr_policy::PcrPolicy;
use crate::store::{Changed, StoreError};

impl Facts<'_> {
    /// Every policy.
    pub(crate) fn pcr_policies(&self) -> Result<Vec<PcrPolicy>, StoreError> {
        let mut select = self.connection.prepare_cached("SELECT policy FROM pcr_policies ORDER BY name")?;
        let rows = select.query_map([], |row| row.get::<_, String>(0))?;
        rows.map(|row| parse(&row?)).collect()
    }

    /// The policy of that name.
    pub(crate) fn pcr_policy(&self, name: &str) -> Result<Option<PcrPolicy>, StoreError> {
        let mut select = self.connection.prepare_cached("SELECT policy FROM pcr_policies WHERE name = ?1")?;
        let found: Option<String> = select.query_row([name], |row| row.get(0)).optional()?;
        found.map(|policy| parse(&policy)).transpose()
    }

    /// How many there are.
    pub(crate) fn count_pcr_policies(&self) -> Result<i64, StoreError> {
        Ok(self.connection.prepare_cached("SELECT count(*) FROM pcr_policies")?.query_row([], |row| row.get(0))?)
    }
}

impl Transaction<'_> {
    /// Adds the policy, or replaces the one of its name.
    pub(crate) fn put_pcr_policy(&self, policy: &PcrPolicy) -> Result<(), StoreError> {
        let put = "INSERT INTO pcr_policies (name, policy) VALUES (?1, ?2)
                   ON CONFLICT (name) DO UPDATE SET policy = excluded.policy";
        let text = serde_json::to_string(policy).expect("texts and numbers are JSON");
        self.connection.prepare_cached(put)?.execute((&policy.name, text))?;
        self.note(Changed::PcrPolicy(policy.name.clone()));
        Ok(())
    }

    /// Removes a policy; false if there is none of that name.
    pub(crate) fn remove_pcr_policy(&self, name: &str) -> Result<bool, StoreError> {
        let removed = self.connection.prepare_cached("DELETE FROM pcr_policies WHERE name = ?1")?.execute([name])? == 1;
        if removed {
            self.note(Changed::PcrPolicy(name.to_owned()));
        }
        Ok(removed)
    }
}

fn parse(policy: &str) -> Result<PcrPolicy, StoreError> {
    serde_json::from_str(policy).map_err(|error| StoreError::Corrupt(format!("a PCR policy: {error}")))
}
