//! What is known of other trust domains: their bundles, where those are shown, and which entries ask for them.

use ironroot_api::bundle::Bundle;
use ironroot_api::{SpiffeId, TrustDomain};

use super::{Facts, Row, Transaction};
use crate::facts::entry::RegistrationEntry;
use crate::facts::federation::{EndpointProfile, EndpointUrl, FederationRelationship, decode_bundle, encode_bundle};
use crate::store::{Changed, StoreError};

impl Facts<'_> {
    /// Every bundle of another trust domain with its place in lists, in order.
    pub(crate) fn federated_bundles(&self) -> Result<Vec<(i64, Bundle)>, StoreError> {
        let select = "SELECT seq, trust_domain, bundle FROM federated_bundles ORDER BY seq";
        self.sql.all(select, &[], bundle)
    }

    /// The bundle of that trust domain with its place in lists.
    pub(crate) fn federated_bundle(&self, trust_domain: &TrustDomain) -> Result<Option<(i64, Bundle)>, StoreError> {
        let select = "SELECT seq, trust_domain, bundle FROM federated_bundles WHERE trust_domain = ?1";
        self.sql.first(select, &[&trust_domain.as_str()], bundle)
    }

    /// How many bundles of other trust domains there are.
    pub(crate) fn count_federated_bundles(&self) -> Result<i64, StoreError> {
        self.sql.one("SELECT count(*) FROM federated_bundles", &[], |row| row.get(0))
    }

    /// Every relationship with its place in lists, in order.
    pub(crate) fn relationships(&self) -> Result<Vec<(i64, FederationRelationship)>, StoreError> {
        let select =
            "SELECT seq, trust_domain, endpoint_url, endpoint_spiffe_id FROM federation_relationships ORDER BY seq";
        self.sql.all(select, &[], relationship)
    }

    /// The relationship with that trust domain and its place in lists.
    pub(crate) fn relationship(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<Option<(i64, FederationRelationship)>, StoreError> {
        let select = "SELECT seq, trust_domain, endpoint_url, endpoint_spiffe_id FROM federation_relationships
                      WHERE trust_domain = ?1";
        self.sql.first(select, &[&trust_domain.as_str()], relationship)
    }

    /// How many relationships there are.
    pub(crate) fn count_relationships(&self) -> Result<i64, StoreError> {
        self.sql.one("SELECT count(*) FROM federation_relationships", &[], |row| row.get(0))
    }

    /// How many entries ask for the bundle of that trust domain.
    pub(crate) fn count_entries_federated_with(&self, trust_domain: &TrustDomain) -> Result<usize, StoreError> {
        let count = "SELECT count(*) FROM entry_federations WHERE trust_domain = ?1";
        let count: i64 = self.sql.one(count, &[&trust_domain.as_str()], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or_default())
    }
}

impl Transaction<'_> {
    /// Adds the bundle or replaces it; it keeps its place in lists.
    pub(crate) fn put_federated_bundle(&self, bundle: &Bundle) -> Result<(), StoreError> {
        let put = "INSERT INTO federated_bundles (trust_domain, bundle) VALUES (?1, ?2)
                   ON CONFLICT (trust_domain) DO UPDATE SET bundle = excluded.bundle";
        self.sql.execute(put, &[&bundle.trust_domain().as_str(), &encode_bundle(bundle)])?;
        self.note(Changed::Bundle(bundle.trust_domain().clone()));
        Ok(())
    }

    /// Removes a bundle; false if there is none of that trust domain.
    pub(crate) fn remove_federated_bundle(&self, trust_domain: &TrustDomain) -> Result<bool, StoreError> {
        let remove = "DELETE FROM federated_bundles WHERE trust_domain = ?1";
        let removed = self.sql.execute(remove, &[&trust_domain.as_str()])? == 1;
        if removed {
            self.note(Changed::Bundle(trust_domain.clone()));
        }
        Ok(removed)
    }

    /// Adds the relationship or replaces it; it keeps its place in lists.
    pub(crate) fn put_relationship(&self, relationship: &FederationRelationship) -> Result<(), StoreError> {
        let put =
            "INSERT INTO federation_relationships (trust_domain, endpoint_url, endpoint_spiffe_id) VALUES (?1, ?2, ?3)
                   ON CONFLICT (trust_domain) DO UPDATE SET
                       endpoint_url = excluded.endpoint_url, endpoint_spiffe_id = excluded.endpoint_spiffe_id";
        let FederationRelationship { trust_domain, url, profile } = relationship;
        let endpoint_id = match profile {
            EndpointProfile::HttpsWeb => None,
            EndpointProfile::HttpsSpiffe(id) => Some(id.as_str()),
        };
        self.sql.execute(put, &[&trust_domain.as_str(), &url.as_str(), &endpoint_id])?;
        self.note(Changed::Relationship(trust_domain.clone()));
        Ok(())
    }

    /// Removes a relationship; false if there is none with that trust domain.
    pub(crate) fn remove_relationship(&self, trust_domain: &TrustDomain) -> Result<bool, StoreError> {
        let remove = "DELETE FROM federation_relationships WHERE trust_domain = ?1";
        let removed = self.sql.execute(remove, &[&trust_domain.as_str()])? == 1;
        if removed {
            self.note(Changed::Relationship(trust_domain.clone()));
        }
        Ok(removed)
    }

    /// Writes down whose bundles the entry asks for.
    pub(super) fn add_federations(&self, entry: &RegistrationEntry) -> Result<(), StoreError> {
        let add = "INSERT INTO entry_federations (trust_domain, entry_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        for trust_domain in entry.federates_with() {
            self.sql.execute(add, &[&trust_domain.as_str(), &entry.id()])?;
        }
        Ok(())
    }

    /// What was written down of the entry of that ID counts no more.
    pub(super) fn forget_federations(&self, entry_id: &str) -> Result<(), StoreError> {
        self.sql.execute("DELETE FROM entry_federations WHERE entry_id = ?1", &[&entry_id])?;
        Ok(())
    }
}

fn bundle(row: &Row<'_>) -> Result<(i64, Bundle), StoreError> {
    let seq: i64 = row.get(0)?;
    let damaged = |why: &dyn std::error::Error| StoreError::Corrupt(format!("bundle in row {seq}: {why}"));
    let trust_domain = TrustDomain::new(&row.get::<String>(1)?).map_err(|e| damaged(&e))?;
    let bundle = decode_bundle(&trust_domain, &row.get::<Vec<u8>>(2)?).map_err(|e| damaged(&e))?;
    Ok((seq, bundle))
}

fn relationship(row: &Row<'_>) -> Result<(i64, FederationRelationship), StoreError> {
    let seq: i64 = row.get(0)?;
    let damaged = |why: &dyn std::error::Error| StoreError::Corrupt(format!("relationship in row {seq}: {why}"));
    let endpoint_id = row.get::<Option<String>>(3)?.map(|id| SpiffeId::parse(&id)).transpose();
    let profile = endpoint_id.map_err(|e| damaged(&e))?.map_or(EndpointProfile::HttpsWeb, EndpointProfile::HttpsSpiffe);
    let relationship = FederationRelationship {
        trust_domain: TrustDomain::new(&row.get::<String>(1)?).map_err(|e| damaged(&e))?,
        url: EndpointUrl::parse(&row.get::<String>(2)?).map_err(|e| damaged(&e))?,
        profile,
    };
    Ok((seq, relationship))
}
