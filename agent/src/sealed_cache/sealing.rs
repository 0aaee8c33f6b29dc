//! What the key of the identities is sealed to, and what opens it: the state that it was sealed in, or one that is signed.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use ironroot_attest::node::tpm2::PcrSelection;
use ironroot_attest::pcr_policy::{AuthenticPolicy, Branches, Epoch, SignedPolicyRefusal};
use ironroot_attest::tpm::{Chip, OpenedBy, TpmError};
use ironroot_shell::describe;
use tracing::{error, info};
use zeroize::Zeroizing;

use super::envelope::{SealedKey, Section, SectionKind};
use super::signed_states::{PolicyFile, SignedStates, Told};
use super::{CacheError, CacheRefusal, SealedCache, SealedFile, unsealing};

/// Whose signatures count, and what is known of them.
pub(super) struct Signed {
    states: SignedStates,
    /// The highest epoch that was seen signed. Older ones are withdrawn.
    first_epoch: Epoch,
    told: Told,
    /// The chip cannot verify with this key.
    is_unfit: bool,
}

impl Signed {
    pub(super) fn new(states: SignedStates) -> Self {
        Self { states, first_epoch: Epoch::FIRST, told: Told::default(), is_unfit: false }
    }

    fn has_key_of(&self, branches: &Branches) -> bool {
        self.states.authority.name() == branches.key
    }

    fn learn(&mut self, epoch: Epoch) {
        self.first_epoch = self.first_epoch.max(epoch);
    }
}

/// An opened key.
pub(super) struct Opened {
    pub(super) key: SealedKey,
    by: OpenedBy,
}

impl SealedCache {
    pub(super) async fn sealed_key(&mut self, kind: SectionKind) -> Result<SealedKey, CacheError> {
        match kind {
            SectionKind::Record => self.record_key().await,
            SectionKind::Identities => self.identities_key().await,
        }
    }

    async fn record_key(&mut self) -> Result<SealedKey, CacheError> {
        if let Some(key) = &self.record_key {
            return Ok(key.clone());
        }
        let key = self.seal(PcrSelection::NONE).await?;
        Ok(self.record_key.insert(key).clone())
    }

    /// A new key, sealed to the present values of `pcrs`.
    async fn seal(&self, pcrs: PcrSelection) -> Result<SealedKey, CacheError> {
        let key = new_key()?;
        let (secret, known) = (key.clone(), self.under());
        let seal = move |chip: &mut Chip| chip.seal_beside(known.as_ref(), &secret, pcrs);
        let blob = self.tpm.run("seal cache key", seal).await.map_err(|e| CacheError::Tpm("seal the cache key", e))?;
        Ok(SealedKey { blob, pcrs, branches: None, key })
    }

    pub(super) async fn unseal_identities(
        &mut self,
        SealedFile { envelope, told, .. }: &SealedFile,
        section: &Section,
    ) -> Result<Opened, CacheRefusal> {
        let (blob, pcrs) = (section.blob.clone(), section.pcrs);
        let Some(branches) = envelope.branches.clone() else {
            let unseal = move |chip: &mut Chip| chip.unseal(&blob, pcrs);
            let key = match &told.key {
                Some(key) => key.clone(),
                None => self.tpm.run("unseal cache key", unseal).await.map_err(unsealing)?,
            };
            let key = SealedKey { blob: section.blob.clone(), pcrs, branches: None, key };
            return Ok(Opened { key, by: OpenedBy::SameState });
        };
        let files = self.policy_files().await.map_err(unsealing)?;
        let newest = self.signed.as_ref().map_or(Epoch::FIRST, |signed| signed.first_epoch);
        let is_good = |file: &PolicyFile| opens(&file.policy, branches.first_epoch, newest).is_ok();
        let is_ours = self.signed.as_ref().is_some_and(|signed| signed.has_key_of(&branches));
        let (good, late): (Vec<_>, Vec<_>) = files.into_iter().filter(|_| is_ours).partition(is_good);
        let (policies, asked) = (good.iter().map(|file| file.policy.clone()).collect::<Vec<_>>(), branches.clone());
        let unseal = move |chip: &mut Chip| chip.unseal_signed(&blob, pcrs, &asked, &policies);
        let unsealed = self.tpm.run("unseal cache key", unseal).await;
        let (key, by) = unsealed.map_err(|error| unsigned(error, &late, branches.first_epoch, newest))?;
        if let OpenedBy::Signed(place) = by {
            let PolicyFile { name: file, policy } = &good[place];
            let (policy, epoch) = (policy.name(), policy.epoch());
            info!(file, policy, %epoch, "the device booted what the operator has signed: the sealed cache opens");
        }
        let key = SealedKey { blob: section.blob.clone(), pcrs, branches: Some(branches), key };
        Ok(Opened { key, by })
    }

    /// What was decrypted with this key is believed.
    pub(super) async fn opened(&mut self, Opened { key, by }: Opened) {
        self.learn_epoch(key.branches.as_ref());
        // What cannot be looked at now is at the next write.
        let is_wanted = self.is_as_wanted(&key).await.unwrap_or(true);
        self.to_seal_anew = by != OpenedBy::SameState || !is_wanted;
        self.identities_key = (!self.to_seal_anew).then_some(key);
    }

    /// An epoch that this device has seen stays the first one, whatever becomes of the files.
    pub(super) fn learn_epoch(&mut self, branches: Option<&Branches>) {
        if let (Some(signed), Some(branches)) = (&mut self.signed, branches)
            && signed.has_key_of(branches)
        {
            signed.learn(branches.first_epoch);
        }
    }

    async fn identities_key(&mut self) -> Result<SealedKey, CacheError> {
        let failed = |e| CacheError::Tpm("tell its PCR bank", e);
        if let Some(key) = self.identities_key.take()
            && self.is_as_wanted(&key).await.map_err(failed)?
        {
            return Ok(self.identities_key.insert(key).clone());
        }
        self.policy_files().await.map_err(failed)?;
        let key = match self.seal_signed().await? {
            Some(key) => key,
            None => self.seal(self.pcrs).await?,
        };
        self.to_seal_anew = false;
        Ok(self.identities_key.insert(key).clone())
    }

    /// Whether a key is sealed to what counts now.
    async fn is_as_wanted(&mut self, key: &SealedKey) -> Result<bool, TpmError> {
        self.policy_files().await?;
        let signed = self.signed.as_ref().filter(|signed| !signed.is_unfit);
        Ok(match (signed, &key.branches) {
            (None, None) => true,
            (Some(signed), Some(branches)) => signed.has_key_of(branches) && branches.first_epoch == signed.first_epoch,
            _ => false,
        })
    }

    /// A new key that signed states open, too; none where no key is configured, or this chip cannot use it.
    async fn seal_signed(&mut self) -> Result<Option<SealedKey>, CacheError> {
        let known = self.under();
        let Some(signed) = self.signed.as_mut().filter(|signed| !signed.is_unfit) else { return Ok(None) };
        let (key, pcrs) = (new_key()?, self.pcrs);
        let (secret, authority, first) = (key.clone(), signed.states.authority.clone(), signed.first_epoch);
        let seal = move |chip: &mut Chip| chip.seal_signed(&secret, pcrs, &authority, first, known.as_ref());
        match self.tpm.run("seal cache key", seal).await {
            Ok((blob, branches)) => Ok(Some(SealedKey { blob, pcrs, branches: Some(branches), key })),
            Err(refused @ TpmError::PolicyKey(_)) => {
                signed.is_unfit = true;
                error!(error = %describe(&refused), "no signed boot policy will open the cache: sign with another key");
                Ok(None)
            }
            Err(other) => Err(CacheError::Tpm("seal the cache key", other)),
        }
    }

    /// The signed policies that are on the device now. The highest epoch among them withdraws those before.
    async fn policy_files(&mut self) -> Result<Vec<PolicyFile>, TpmError> {
        let Some(states) = self.signed.as_ref().map(|signed| signed.states.clone()) else { return Ok(Vec::new()) };
        let pcrs = self.pcrs;
        let bank = self.tpm.run("look for PCR bank", move |chip| chip.bank_of_seals(pcrs)).await?;
        let directory = states.directory.clone();
        let read = tokio::task::spawn_blocking(move || states.read(bank, pcrs)).await.unwrap_or_default();
        if let Some(signed) = &mut self.signed {
            signed.told.tell(&directory, &read.refused);
            read.good.iter().for_each(|file| signed.learn(file.policy.epoch()));
        }
        Ok(read.good)
    }
}

fn new_key() -> Result<Zeroizing<Vec<u8>>, CacheError> {
    let mut key = Zeroizing::new(vec![0; 32]);
    SystemRandom::new().fill(&mut key).map_err(|_| CacheError::Encode)?;
    Ok(key)
}

/// Whether a policy opens what was sealed at one epoch, now that this device has seen the newest.
fn opens(policy: &AuthenticPolicy, sealed: Epoch, newest: Epoch) -> Result<(), SignedPolicyRefusal> {
    policy.within(sealed)?;
    if policy.epoch() < newest {
        return Err(SignedPolicyRefusal::Withdrawn { epoch: policy.epoch(), first: newest });
    }
    Ok(())
}

/// Why a key stays shut: the state of now is not signed at all, or no more, or for an epoch too far ahead.
fn unsigned(error: TpmError, late: &[PolicyFile], sealed: Epoch, newest: Epoch) -> CacheRefusal {
    if let TpmError::UnsignedState { present } = error
        && let Some(file) = late.iter().find(|file| file.policy.policy() == present)
        && let Err(refusal) = opens(&file.policy, sealed, newest)
    {
        return CacheRefusal::SignedPolicy { file: file.name.clone(), refusal };
    }
    unsealing(error)
}
