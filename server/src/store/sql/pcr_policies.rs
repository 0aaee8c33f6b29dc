//! What devices may have booted.

use super::{Facts, Row, Transaction};
use crate::facts::pcr_policy::PcrPolicy;
use crate::store::{Changed, StoreError};

impl Facts<'_> {
    /// Every policy.
    pub(crate) fn pcr_policies(&self) -> Result<Vec<PcrPolicy>, StoreError> {
        self.sql.all("SELECT policy FROM pcr_policies ORDER BY name", &[], parse)
    }

    /// The policy of that name.
    pub(crate) fn pcr_policy(&self, name: &str) -> Result<Option<PcrPolicy>, StoreError> {
        self.sql.first("SELECT policy FROM pcr_policies WHERE name = ?1", &[&name], parse)
    }

    /// How many there are.
    pub(crate) fn count_pcr_policies(&self) -> Result<i64, StoreError> {
        self.sql.one("SELECT count(*) FROM pcr_policies", &[], |row| row.get(0))
    }
}

impl Transaction<'_> {
    /// Adds the policy, or replaces the one of its name.
    pub(crate) fn put_pcr_policy(&self, policy: &PcrPolicy) -> Result<(), StoreError> {
        let put = "INSERT INTO pcr_policies (name, policy) VALUES (?1, ?2)
                   ON CONFLICT (name) DO UPDATE SET policy = excluded.policy";
        let text = serde_json::to_string(policy).expect("texts and numbers are JSON");
        self.sql.execute(put, &[&policy.name, &text])?;
        self.note(Changed::PcrPolicy(policy.name.clone()));
        Ok(())
    }

    /// Removes a policy; false if there is none of that name.
    pub(crate) fn remove_pcr_policy(&self, name: &str) -> Result<bool, StoreError> {
        let removed = self.sql.execute("DELETE FROM pcr_policies WHERE name = ?1", &[&name])? == 1;
        if removed {
            self.note(Changed::PcrPolicy(name.to_owned()));
        }
        Ok(removed)
    }
}

fn parse(row: &Row<'_>) -> Result<PcrPolicy, StoreError> {
    serde_json::from_str(&row.get::<String>(0)?).map_err(|error| StoreError::Corrupt(format!("a PCR policy: {error}")))
}
