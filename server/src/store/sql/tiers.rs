//! Authorities of other tiers.

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_api::SpiffeId;
use ironroot_text::hex::hex;

use super::{Facts, Row, Transaction};
use crate::facts::through::is_through;
use crate::facts::tier::{TierAuthorities, TierAuthority, TierCredential, TierOrigin};
use crate::store::{Changed, StoreError};

/// The origin of what an administrator has appended; no SPIFFE ID.
const ADMINISTRATOR: &str = "administrator";

/// What the columns of a row's key say.
struct Key<'a> {
    kind: &'static str,
    name: String,
    origin: &'a str,
}

impl Facts<'_> {
    /// Every authority of another tier, and how often they have changed.
    pub fn tier_authorities(&self) -> Result<TierAuthorities, StoreError> {
        let select = "SELECT kind, name, origin, credential, expires_at, tainted FROM tier_authorities
                      ORDER BY kind, name, origin";
        let authorities = self.sql.all(select, &[], authority)?;
        let revision: i64 = self.sql.one("SELECT revision FROM tier_revision", &[], |row| row.get(0))?;
        Ok(TierAuthorities { authorities, revision: revision.unsigned_abs() })
    }
}

impl Transaction<'_> {
    /// Adds the authority, or replaces what its origin has told of it before.
    pub fn put_tier_authority(&self, authority: &TierAuthority) -> Result<(), StoreError> {
        let put = "INSERT INTO tier_authorities (kind, name, origin, credential, expires_at, tainted)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                   ON CONFLICT (kind, name, origin) DO UPDATE SET
                       credential = excluded.credential, expires_at = excluded.expires_at, tainted = excluded.tainted";
        let Key { kind, name, origin } = key(authority);
        let TierAuthority { expires_at, tainted, .. } = authority;
        self.sql.execute(put, &[&kind, &name, &origin, &credential(authority), expires_at, tainted])?;
        self.note_tiers()
    }

    /// Removes what its origin has told of this authority.
    pub fn remove_tier_authority(&self, authority: &TierAuthority) -> Result<(), StoreError> {
        let remove = "DELETE FROM tier_authorities WHERE kind = ?1 AND name = ?2 AND origin = ?3";
        let Key { kind, name, origin } = key(authority);
        match self.sql.execute(remove, &[&kind, &name, &origin])? {
            0 => Ok(()),
            _ => self.note_tiers(),
        }
    }

    /// Removes those whose time was over then; how many.
    pub fn remove_tier_authorities_expired_at(&self, now_unix: i64) -> Result<usize, StoreError> {
        let remove = "DELETE FROM tier_authorities WHERE expires_at <= ?1";
        let removed = self.sql.execute(remove, &[&now_unix])?;
        if removed > 0 {
            self.note_tiers()?;
        }
        Ok(usize::try_from(removed).unwrap_or(usize::MAX))
    }

    /// Removes the keys of tokens that these agents have published for themselves: each is named by the serial number of the SVID that
    /// published it.
    pub(super) fn remove_keys_published_through(&self, agents: &[SpiffeId]) -> Result<(), StoreError> {
        let is_theirs = |key_id: &str| agents.iter().any(|agent| is_through(key_id, agent));
        let theirs = |authority: &TierAuthority| match (&authority.origin, &authority.credential) {
            (TierOrigin::Below(_), TierCredential::JwtKey { key_id, .. } | TierCredential::WitKey { key_id, .. }) => {
                is_theirs(key_id)
            }
            _ => false,
        };
        let known = self.tier_authorities()?.authorities;
        known
            .iter()
            .filter(|authority| theirs(authority))
            .try_for_each(|authority| self.remove_tier_authority(authority))
    }

    /// Whether the SVID of that serial number was fetched through an agent that is banned. A key of a server below is named by that of the SVID
    /// that publishes it.
    pub fn is_through_banned_agent(&self, serial: &str) -> Result<bool, StoreError> {
        let banned: Vec<String> = self.sql.all("SELECT spiffe_id FROM agents WHERE banned", &[], |row| row.get(0))?;
        let ids = banned.iter().filter_map(|id| SpiffeId::parse(id).ok());
        Ok(ids.into_iter().any(|agent| is_through(serial, &agent)))
    }

    fn note_tiers(&self) -> Result<(), StoreError> {
        self.sql.execute("UPDATE tier_revision SET revision = revision + 1", &[])?;
        self.note(Changed::Tiers);
        Ok(())
    }
}

fn key(authority: &TierAuthority) -> Key<'_> {
    let (kind, name) = match &authority.credential {
        TierCredential::Certificate(der) => ("x509", hex(&digest(&SHA256, der))),
        TierCredential::JwtKey { key_id, .. } => ("jwt", key_id.clone()),
        TierCredential::WitKey { key_id, .. } => ("wit", key_id.clone()),
    };
    let origin = match &authority.origin {
        TierOrigin::Below(id) => id.as_str(),
        TierOrigin::Above => "",
        TierOrigin::Administrator => ADMINISTRATOR,
    };
    Key { kind, name, origin }
}

fn credential(authority: &TierAuthority) -> &[u8] {
    match &authority.credential {
        TierCredential::Certificate(der) => der,
        TierCredential::JwtKey { spki, .. } | TierCredential::WitKey { spki, .. } => spki,
    }
}

fn authority(row: &Row<'_>) -> Result<TierAuthority, StoreError> {
    let (kind, name, origin): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let damaged = |what: &str| StoreError::Corrupt(format!("authority {name} of another tier: {what}"));
    let origin = match origin.as_str() {
        "" => TierOrigin::Above,
        ADMINISTRATOR => TierOrigin::Administrator,
        id => TierOrigin::Below(SpiffeId::parse(id).map_err(|_| damaged("malformed SPIFFE ID"))?),
    };
    let credential = match kind.as_str() {
        "x509" => TierCredential::Certificate(row.get(3)?),
        "jwt" => TierCredential::JwtKey { key_id: name, spki: row.get(3)? },
        "wit" => TierCredential::WitKey { key_id: name, spki: row.get(3)? },
        _ => return Err(damaged("unknown kind")),
    };
    Ok(TierAuthority { origin, credential, expires_at: row.get(4)?, tainted: row.get(5)? })
}
