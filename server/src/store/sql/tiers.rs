//! Authorities of other tiers.

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_api::SpiffeId;
use ironroot_text::hex::hex;
use tracing::info;

use super::{Facts, Row, Transaction, Value};
use crate::facts::through::is_through;
use crate::facts::tier::{Publisher, TierAuthorities, TierAuthority, TierCredential, TierOrigin};
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
        let select =
            "SELECT kind, name, origin, credential, expires_at, tainted, serial, orphaned_at FROM tier_authorities
                      ORDER BY kind, name, origin";
        let authorities = self.sql.all(select, &[], authority)?;
        let revision: i64 = self.sql.one("SELECT revision FROM tier_revision", &[], |row| row.get(0))?;
        Ok(TierAuthorities { authorities, revision: revision.unsigned_abs() })
    }
}

impl Transaction<'_> {
    /// Adds the authority, or replaces what its origin has told of it before.
    pub fn put_tier_authority(&self, authority: &TierAuthority) -> Result<(), StoreError> {
        let put =
            "INSERT INTO tier_authorities (kind, name, origin, credential, expires_at, tainted, serial, orphaned_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                   ON CONFLICT (kind, name, origin) DO UPDATE SET
                       credential = excluded.credential, expires_at = excluded.expires_at, tainted = excluded.tainted,
                       serial = excluded.serial, orphaned_at = excluded.orphaned_at";
        let Key { kind, name, origin } = key(authority);
        let TierAuthority { expires_at, tainted, .. } = authority;
        let (serial, orphaned_at) = authority.publisher().map_or(("", 0), |by| (by.serial.as_str(), by.orphaned_at));
        let credential = credential(authority);
        let values: [&dyn Value; 8] = [&kind, &name, &origin, &credential, expires_at, tainted, &serial, &orphaned_at];
        self.sql.execute(put, &values)?;
        self.note_tiers()
    }

    /// Calls what its origin has told of this authority tainted; false if that is not there any more: a ban, or its publisher's last entry, may
    /// have taken it away since somebody read it.
    pub fn taint_tier_authority(&self, authority: &TierAuthority) -> Result<bool, StoreError> {
        let taint = "UPDATE tier_authorities SET tainted = TRUE WHERE kind = ?1 AND name = ?2 AND origin = ?3 AND credential = ?4";
        let Key { kind, name, origin } = key(authority);
        let is_there = self.sql.execute(taint, &[&kind, &name, &origin, &credential(authority)])? > 0;
        if is_there {
            self.note_tiers()?;
        }
        Ok(is_there)
    }

    /// Removes what its origin has told of this authority.
    pub fn remove_tier_authority(&self, authority: &TierAuthority) -> Result<(), StoreError> {
        match self.delete_tier_authority(authority)? {
            0 => Ok(()),
            _ => self.note_tiers(),
        }
    }

    /// To be noted; how many there were.
    fn delete_tier_authority(&self, authority: &TierAuthority) -> Result<u64, StoreError> {
        let delete = "DELETE FROM tier_authorities WHERE kind = ?1 AND name = ?2 AND origin = ?3";
        let Key { kind, name, origin } = key(authority);
        self.sql.execute(delete, &[&kind, &name, &origin])
    }

    /// Removes those whose time was over then ([`TierAuthority::is_over`]); how many.
    pub fn remove_tier_authorities_expired_at(&self, now_unix: i64) -> Result<usize, StoreError> {
        let known = self.tier_authorities()?.authorities;
        let over = known.iter().filter(|authority| authority.is_over(now_unix));
        let removed = over.map(|authority| self.delete_tier_authority(authority)).sum::<Result<u64, _>>()?;
        if removed > 0 {
            self.note_tiers()?;
        }
        Ok(usize::try_from(removed).unwrap_or(usize::MAX))
    }

    /// No key of a server below is good for longer than until then, UNIX seconds; how many were.
    pub fn bound_published_keys(&self, latest: i64) -> Result<u64, StoreError> {
        let bound = "UPDATE tier_authorities SET expires_at = ?1 WHERE expires_at > ?1 AND origin NOT IN ('', ?2)";
        let bounded = self.sql.execute(bound, &[&latest, &ADMINISTRATOR])?;
        if bounded > 0 {
            self.note_tiers()?;
        }
        Ok(bounded)
    }

    /// Keys that were published under this ID are in the bundle while an entry gives it a CA, and come back if one does again soon. To be
    /// called when an entry of that ID has changed.
    pub fn settle_keys_of(&self, id: &str) -> Result<(), StoreError> {
        let any = "SELECT EXISTS (SELECT 1 FROM tier_authorities WHERE origin = ?1)";
        if !self.sql.one(any, &[&id], |row| row.get(0))? {
            return Ok(());
        }
        let changed = match self.gives_ca(id)? {
            true => self.bring_back_keys_of(id)?,
            false => self.orphan_keys_of(id)?,
        };
        if changed > 0 { self.note_tiers() } else { Ok(()) }
    }

    /// But those that were without an entry for too long: they stay out of the bundle, and go where the clock may destroy anything.
    fn bring_back_keys_of(&self, id: &str) -> Result<u64, StoreError> {
        let back = "UPDATE tier_authorities SET orphaned_at = 0 WHERE kind = ?1 AND name = ?2 AND origin = ?3";
        let known = self.tier_authorities()?.authorities;
        let is_orphan =
            |one: &&TierAuthority| one.publisher().is_some_and(|by| by.id.as_str() == id && by.orphaned_at != 0);
        let mut changed = 0;
        for orphan in known.iter().filter(is_orphan) {
            changed += match (orphan.is_abandoned(self.moment.now_unix), self.moment.may_destroy()) {
                (true, true) => self.delete_tier_authority(orphan)?,
                (true, false) => 0,
                (false, _) => {
                    let Key { kind, name, origin } = key(orphan);
                    self.sql.execute(back, &[&kind, &name, &origin])?
                }
            };
        }
        Ok(changed)
    }

    fn orphan_keys_of(&self, id: &str) -> Result<u64, StoreError> {
        let orphan = "UPDATE tier_authorities SET orphaned_at = ?2 WHERE origin = ?1 AND orphaned_at = 0";
        let orphaned = self.sql.execute(orphan, &[&id, &self.moment.now_unix])?;
        if orphaned > 0 {
            info!(
                spiffe_id = id,
                orphaned,
                "no entry gives this ID a CA any more: the keys that were published under it leave the trust bundle"
            );
        }
        Ok(orphaned)
    }

    /// Removes the keys of tokens that were published by SVIDs which were fetched through these agents. Of those of before that was noted, the
    /// ones that agents have published for themselves are named by the serial number of that SVID.
    pub(super) fn remove_keys_published_through(&self, agents: &[SpiffeId]) -> Result<(), StoreError> {
        let is_theirs = |serial: &str| agents.iter().any(|agent| is_through(serial, agent));
        let theirs = |authority: &TierAuthority| {
            let published = authority.publisher().zip(authority.key_id());
            published.is_some_and(|(by, key_id)| is_theirs(&by.serial) || is_theirs(key_id))
        };
        let known = self.tier_authorities()?.authorities;
        known
            .iter()
            .filter(|authority| theirs(authority))
            .try_for_each(|authority| self.remove_tier_authority(authority))
    }

    /// Whether the SVID of that serial number was fetched through an agent that is banned.
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
        TierOrigin::Below(publisher) => publisher.id.as_str(),
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
        id => {
            let id = SpiffeId::parse(id).map_err(|_| damaged("malformed SPIFFE ID"))?;
            TierOrigin::Below(Publisher { id, serial: row.get(6)?, orphaned_at: row.get(7)? })
        }
    };
    let credential = match kind.as_str() {
        "x509" => TierCredential::Certificate(row.get(3)?),
        "jwt" => TierCredential::JwtKey { key_id: name, spki: row.get(3)? },
        "wit" => TierCredential::WitKey { key_id: name, spki: row.get(3)? },
        _ => return Err(damaged("unknown kind")),
    };
    Ok(TierAuthority { origin, credential, expires_at: row.get(4)?, tainted: row.get(5)? })
}
