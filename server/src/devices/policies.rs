//! What devices may have booted: named policies, held against the last state that each device has proven.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::rand;
use ironroot_api::pb::pcr_policy as pb;
use ironroot_text::hex::hex;
use thiserror::Error;

use super::{Devices, NewPolicy, PcrPolicyError};
use crate::facts::device::{BootFacts, DeviceRecord};
use crate::facts::ima_policy::{ImaPolicy, MeasuredFile};
use crate::facts::pcr_policy::{Alternative, MAX_POLICIES, PcrPolicy};
use crate::rights::Administrator;
use crate::store::{StoreError, Transaction};

/// Registers that a policy learns only if they are named: they differ from machine to machine, or while a system runs.
const NOT_LEARNT: [u8; 4] = [1, 5, 6, 10];
/// Random bytes of a lineage.
const LINEAGE_BYTES: usize = 8;

/// Why a policy is not changed.
#[derive(Clone, Debug, Error)]
pub enum PolicyError {
    /// No policy of that name.
    #[error("policy not found")]
    NotFound,
    /// It breaks a bound.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Policy(Vec<PcrPolicyError>),
    /// Each is held against each device.
    #[error("there are {MAX_POLICIES} policies already: delete some")]
    TooMany,
    /// The registry has no device of that name.
    #[error("device not found")]
    DeviceNotFound,
    /// It has not attested since states are kept, or quotes no register.
    #[error("the device has proven no boot state yet: let it attest")]
    NoBoot,
    /// The device did not quote what is to be learnt.
    #[error("the device does not quote PCR {0}: name it in pcrs of NodeAttestor \"tpm2\"")]
    NotQuoted(u32),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A device as it is today: its record, and the policies that its last proven boot meets.
#[derive(Clone, Debug)]
pub struct DeviceToday {
    /// Its record.
    pub record: Arc<DeviceRecord>,
    /// Names, sorted.
    pub policies: BTreeSet<String>,
    /// Those that allow each file that it has measured.
    pub files: BTreeSet<String>,
}

/// What a device's list of measured files is held against, and how far it was shown before.
#[derive(Clone, Debug, Default)]
pub struct ImaTask {
    /// Policies of files that are about it.
    pub policies: Vec<Arc<PcrPolicy>>,
    /// What it has booted last.
    pub last: Option<Arc<BootFacts>>,
}

impl Devices {
    /// Every policy, by name.
    pub fn policies(&self) -> Vec<Arc<PcrPolicy>> {
        self.read().policies.values().cloned().collect()
    }

    /// The policy of that name.
    pub fn policy(&self, name: &str) -> Option<Arc<PcrPolicy>> {
        self.read().policies.get(name).cloned()
    }

    /// The device of that endorsement key as it is today.
    pub fn today(&self, ek_sha256: &[u8; 32]) -> Option<DeviceToday> {
        let table = self.read();
        table.get(ek_sha256).map(|known| table.today(known))
    }

    /// Every device as it is today, in the order they became known.
    pub fn all_today(&self) -> Vec<DeviceToday> {
        let table = self.read();
        table.behind(i64::MIN).map(|known| table.today(known)).collect()
    }

    /// Whether a device that has booted this meets any policy that is about it.
    pub fn meets_any(&self, ek_sha256: &[u8; 32], boot: &BootFacts) -> bool {
        let table = self.read();
        let none = BTreeMap::new();
        let labels = table.get(ek_sha256).map_or(&none, |known| &known.record.labels);
        !table.met(labels, boot).is_empty()
    }

    /// What the list of measured files of that device is held against. A device that is not known yet has no labels.
    pub fn ima_task(&self, ek_sha256: &[u8; 32]) -> ImaTask {
        let table = self.read();
        let (none, known) = (BTreeMap::new(), table.get(ek_sha256));
        let policies = table.of_files(known.map_or(&none, |known| &known.record.labels));
        ImaTask { policies, last: known.and_then(|known| known.boot.clone()) }
    }

    /// Adds the policy, or replaces the one of its name.
    pub async fn set_policy(&self, _: &Administrator, policy: NewPolicy) -> Result<Arc<PcrPolicy>, PolicyError> {
        self.store.change(move |tx| put(tx, policy.policy().clone())).await
    }

    /// Removes a policy: no device meets it from then on.
    pub async fn delete_policy(&self, _: &Administrator, name: &str) -> Result<(), PolicyError> {
        let name = name.to_owned();
        let remove = move |tx: &Transaction<'_>| match tx.remove_pcr_policy(&name)? {
            true => Ok(()),
            false => Err(PolicyError::NotFound),
        };
        self.store.change(remove).await
    }

    /// Adds what a device has booted to the policy of that name, which is made if it is not there. The same state again changes
    /// nothing; with `replace` it is the only one from then on. Labels, if any are given, take the place of the policy's.
    pub async fn learn_policy(
        &self,
        _: &Administrator,
        ek_sha256: &[u8; 32],
        request: pb::LearnPolicyRequest,
    ) -> Result<Arc<PcrPolicy>, PolicyError> {
        let ek_sha256 = *ek_sha256;
        let learn = move |tx: &Transaction<'_>| {
            let device = tx.device(&ek_sha256)?.ok_or(PolicyError::DeviceNotFound)?;
            let boot = device.boot.ok_or(PolicyError::NoBoot)?;
            let learnt = alternative(&boot, &request)?;
            let known = tx.pcr_policy(&request.name)?;
            put(tx, with(known, learnt, &request)?)
        };
        self.store.change(learn).await
    }
}

fn put(tx: &Transaction<'_>, mut policy: PcrPolicy) -> Result<Arc<PcrPolicy>, PolicyError> {
    let known = tx.pcr_policy(&policy.name)?;
    if let Some(files) = &mut policy.ima {
        files.lineage = lineage(known.as_ref().and_then(|known| known.ima.as_ref()), files);
    }
    if known.is_none() && tx.count_pcr_policies()? >= MAX_POLICIES as i64 {
        return Err(PolicyError::TooMany);
    }
    tx.put_pcr_policy(&policy)?;
    Ok(Arc::new(policy))
}

/// The name of what these files are a part of: the one of before, if they allow all that was allowed before.
fn lineage(before: Option<&ImaPolicy>, now: &ImaPolicy) -> String {
    match before.filter(|before| now.allows_all_of(before)) {
        Some(before) => before.lineage.clone(),
        None => {
            let mut bytes = [0; LINEAGE_BYTES];
            rand::fill(&mut bytes).expect("the kernel's random source does not fail once it has been seeded");
            hex(&bytes)
        }
    }
}

/// The registers asked for, as they were quoted.
fn alternative(boot: &BootFacts, request: &pb::LearnPolicyRequest) -> Result<Alternative, PolicyError> {
    if boot.pcrs.is_empty() {
        return Err(PolicyError::NoBoot);
    }
    let quoted = |pcr: &u32| {
        u8::try_from(*pcr).ok().filter(|pcr| boot.pcrs.contains_key(pcr)).ok_or(PolicyError::NotQuoted(*pcr))
    };
    let wanted: BTreeSet<u8> = match request.pcrs.as_slice() {
        [] => boot.pcrs.keys().copied().filter(|pcr| !NOT_LEARNT.contains(pcr)).collect(),
        named => named.iter().map(quoted).collect::<Result<_, _>>()?,
    };
    let pcrs = boot.pcrs.iter().filter(|(pcr, _)| wanted.contains(pcr));
    Ok(Alternative {
        bank: boot.bank,
        pcrs: pcrs.map(|(pcr, value)| (*pcr, value.clone())).collect(),
        note: request.note.clone(),
    })
}

fn with(
    known: Option<PcrPolicy>,
    learnt: Alternative,
    request: &pb::LearnPolicyRequest,
) -> Result<PcrPolicy, PolicyError> {
    let new = PcrPolicy { name: request.name.clone(), labels: Default::default(), alternatives: Vec::new(), ima: None };
    let mut policy = known.unwrap_or(new);
    if !request.labels.is_empty() {
        policy.labels = request.labels.clone().into_iter().collect();
    }
    if request.replace {
        policy.alternatives.clear();
        policy.ima = policy.ima.map(|files| ImaPolicy { allowed: BTreeSet::new(), ..files });
    }
    if !request.files.is_empty() {
        let files = request.files.iter().map(MeasuredFile::from_pb);
        policy.ima.get_or_insert_default().allowed.extend(files);
    }
    let is_same = |known: &Alternative| (known.bank, &known.pcrs) == (learnt.bank, &learnt.pcrs);
    if !policy.alternatives.iter().any(is_same) {
        policy.alternatives.push(learnt);
    }
    let checked = NewPolicy::from_pb(&policy.to_pb()).map_err(PolicyError::Policy)?;
    Ok(checked.policy().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(pcrs: &[u32]) -> pb::LearnPolicyRequest {
        pb::LearnPolicyRequest { name: "golden".into(), pcrs: pcrs.to_vec(), ..Default::default() }
    }

    fn learnt(boot: &BootFacts, request: &pb::LearnPolicyRequest) -> Result<Vec<u8>, PolicyError> {
        alternative(boot, request).map(|alternative| alternative.pcrs.into_keys().collect())
    }

    #[test]
    fn what_differs_from_machine_to_machine_is_learnt_only_if_it_is_named() {
        let boot = BootFacts::example(&(0..16).map(|pcr| (pcr, 7)).collect::<Vec<_>>());
        let all = learnt(&boot, &learn(&[])).expect("learnt");
        assert_eq!(all, [0, 2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15]);
        assert_eq!(learnt(&boot, &learn(&[5, 7, 5])).expect("learnt"), [5, 7]);
        for pcr in [16, 263] {
            assert!(matches!(learnt(&boot, &learn(&[pcr])), Err(PolicyError::NotQuoted(p)) if p == pcr));
        }
        assert!(matches!(learnt(&BootFacts::example(&[]), &learn(&[])), Err(PolicyError::NoBoot)));
    }

    #[test]
    fn files_that_are_learnt_come_to_those_of_before_and_what_is_taken_away_starts_another_lineage() {
        let state = || alternative(&BootFacts::example(&[(0, 1)]), &learn(&[])).expect("learnt");
        let file =
            |name: &str| pb::File { path: format!("/bin/{name}"), digest: format!("sha256:{}", "0a".repeat(32)) };
        let more = |names: &[&str], replace| {
            let files = names.iter().map(|name| file(name)).collect();
            pb::LearnPolicyRequest { files, replace, ..learn(&[]) }
        };
        let first = with(None, state(), &more(&["a"], false)).expect("legal");
        let both = with(Some(first.clone()), state(), &more(&["b"], false)).expect("legal");
        let (one, two) = (first.ima.expect("files"), both.ima.clone().expect("files"));
        assert_eq!((one.allowed.len(), two.allowed.len()), (1, 2));
        let named = ImaPolicy { lineage: "before".into(), ..one };
        assert_eq!(lineage(Some(&named), &two), "before");
        let other = with(Some(both.clone()), state(), &more(&["b"], true)).expect("legal").ima.expect("files");
        assert_eq!(other.allowed.len(), 1);
        let anew = lineage(Some(&ImaPolicy { lineage: "before".into(), ..two }), &other);
        assert!(anew != "before" && anew.len() == 2 * LINEAGE_BYTES, "{anew}");
        let kept = with(Some(both), state(), &learn(&[])).expect("legal");
        assert_eq!(kept.ima.map(|files| files.allowed.len()), Some(2), "without files they stay");
    }

    #[test]
    fn a_second_state_is_learnt_beside_the_first_or_in_its_place() {
        let state = |byte| alternative(&BootFacts::example(&[(0, byte)]), &learn(&[])).expect("learnt");
        let first = with(None, state(1), &learn(&[])).expect("legal");
        let again = with(Some(first.clone()), state(1), &learn(&[])).expect("legal");
        assert_eq!(first, again, "the same again");
        let window = with(Some(first), state(2), &learn(&[])).expect("legal");
        assert_eq!(window.alternatives, [state(1), state(2)]);
        let replace = pb::LearnPolicyRequest { replace: true, ..learn(&[]) };
        let closed = with(Some(window), state(2), &replace).expect("legal");
        assert_eq!(closed.alternatives, [state(2)]);
        let labels = [("site".to_owned(), "rome".to_owned())];
        let labelled = pb::LearnPolicyRequest { labels: labels.clone().into(), ..learn(&[]) };
        let closed = with(Some(closed), state(2), &labelled).expect("legal");
        assert_eq!(closed.labels, labels.into());
        let kept = with(Some(closed.clone()), state(2), &learn(&[])).expect("legal");
        assert_eq!(kept, closed, "labels that are not named stay");
        let untouched = with(None, state(0), &learn(&[]));
        assert!(
            matches!(untouched, Err(PolicyError::Policy(m)) if m == [PcrPolicyError::NothingMeasured { place: 0 }])
        );
    }
}
