//! Takes over: the keys into their file, then everything else in one transaction. What fails leaves nothing behind.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::error::TakeoverError;
use super::plan::Takeover;
use super::report::Report;
use crate::keys::{KeyError, KeyFile, SoftwareKey};
use crate::store::{Store, Transaction};

impl Takeover {
    /// Writes all of it into `store`, which is called `name`.
    ///
    /// Errors: the store is not empty, or cannot be written: then it is as it was, and so is the key file.
    pub async fn take(self, store: &Store, name: &str) -> Result<Report, TakeoverError> {
        refuse_content(store, name).await?;
        let written = self.keys.as_ref().map(|(path, keys)| write_keys(path, keys)).transpose()?;
        let (entries, agents, tokens) = (Arc::new(self.entries), Arc::new(self.agents), Arc::new(self.tokens));
        let (federation, above) = (Arc::new(self.federation), Arc::new(self.above));
        let (server, journal, name) = (self.server, self.journal.to_bytes(), name.to_owned());
        let take = move |tx: &Transaction<'_>| {
            if let Some(content) = tx.content()? {
                return Err(TakeoverError::NotEmpty(name.clone(), content));
            }
            // Bundles come before the entries that ask for them.
            federation.bundles.iter().try_for_each(|bundle| tx.put_federated_bundle(bundle))?;
            federation.relationships.iter().try_for_each(|relationship| tx.put_relationship(relationship))?;
            above.iter().try_for_each(|root| tx.put_tier_authority(root))?;
            entries.iter().try_for_each(|entry| tx.add_entry(entry))?;
            agents.iter().try_for_each(|agent| tx.put_agent(agent).map(drop))?;
            tokens.iter().try_for_each(|token| tx.add_join_token(&token.token, token.expires_at).map(drop))?;
            Ok(tx.put_ca_journal(server.as_str(), &journal)?)
        };
        let taken: Result<(), TakeoverError> = store.change(take).await;
        match (taken, written) {
            (Ok(()), _) => Ok(self.report),
            (Err(error), Some(WrittenKeys::New)) => {
                // They have signed nothing here.
                if let Some((path, _)) = &self.keys {
                    let _ = fs::remove_file(path);
                }
                Err(error)
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// Whether the file was there.
enum WrittenKeys {
    New,
    /// With these keys: an earlier import was cut off after it had written them.
    There,
}

async fn refuse_content(store: &Store, name: &str) -> Result<(), TakeoverError> {
    let content: Option<&'static str> = store.change(|tx: &Transaction<'_>| tx.content()).await?;
    content.map_or(Ok(()), |content| Err(TakeoverError::NotEmpty(name.to_owned(), content)))
}

fn write_keys(path: &Path, keys: &[(String, SoftwareKey)]) -> Result<WrittenKeys, TakeoverError> {
    let file = KeyFile::at(path);
    let there = file.read().map_err(KeyError::from)?;
    if there.is_empty() {
        let existed = path.exists();
        file.replace(keys.iter().map(|(id, key)| (id.as_str(), key))).map_err(KeyError::from)?;
        return Ok(if existed { WrittenKeys::There } else { WrittenKeys::New });
    }
    let same = there.len() == keys.len()
        && keys.iter().all(|(id, key)| there.get(id).is_some_and(|other| other.spki_der() == key.spki_der()));
    if same { Ok(WrittenKeys::There) } else { Err(TakeoverError::KeyFileInUse(path.to_owned())) }
}
