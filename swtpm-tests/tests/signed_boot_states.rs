//! Boot states that the operator has signed, against a real TPM 2.0 emulator: what they open, and each reason why one does not.

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_agent::sealed_cache::{CacheRefusal, FILE_NAME, PolicyFileRefusal, SealedCache, SignedStates};
use ironroot_attest::node::tpm2::{PcrHash, PcrSelection};
use ironroot_attest::pcr_policy::{Epoch, MAX_POLICY_FILE_BYTES, SignedPolicyRefusal};
use ironroot_attest::tpm::{DEFAULT_COUNTER_INDEX, OpenedBy, Tpm, TpmError};
use ironroot_lab::cached::{Restored, content, path_of, restore, trust_domain};
use ironroot_lab::policy_operator::{P256, PolicyOperator};
use ironroot_lab::swtpm::Swtpm;
use tempfile::TempDir;

/// A chip, a data directory, and signed policies.
struct Device {
    chip: Swtpm,
    directory: TempDir,
    policies: TempDir,
}

impl Device {
    fn new() -> Self {
        let directory = || tempfile::tempdir().expect("directory");
        Self { chip: Swtpm::start().expect("swtpm starts"), directory: directory(), policies: directory() }
    }

    /// As firmware number `state` leaves PCR 7.
    fn boot(&mut self, state: u8) {
        self.chip.power_cycle().expect("power cycle");
        self.chip.extend(&[(7, [state; 32])]).expect("extended");
    }

    async fn tpm(&self) -> Tpm {
        Tpm::open(self.chip.address()).await.expect("the TPM answers")
    }

    /// As an agent that has just started and trusts this operator, or none.
    async fn cache(&self, operator: Option<&PolicyOperator>) -> SealedCache {
        let cache = SealedCache::new(self.tpm().await, self.directory.path(), pcr7(), DEFAULT_COUNTER_INDEX);
        cache.with_signed_states(operator.map(|operator| self.states(operator)))
    }

    fn states(&self, operator: &PolicyOperator) -> SignedStates {
        operator.states(self.policies.path())
    }

    /// As an agent does that has just started: reads what there is, then writes.
    async fn store(&self, operator: Option<&PolicyOperator>, path: &str) {
        let mut cache = self.cache(operator).await;
        if self.directory.path().join(FILE_NAME).exists() {
            let _ = restore(&mut cache).await;
        }
        let (record, identities) = content(path);
        cache.store(&record, &identities, true).await.expect("stored");
    }

    async fn restore(&self, operator: Option<&PolicyOperator>) -> Restored {
        restore(&mut self.cache(operator).await).await
    }

    async fn expect(&self, operator: Option<&PolicyOperator>, path: &str) {
        assert_eq!(path_of(&self.restore(operator).await.0.expect("it opens")), path);
    }

    /// Why the identities stay shut; the agent's own record is never lost.
    async fn refusal(&self, operator: &PolicyOperator) -> CacheRefusal {
        let (identities, record) = self.restore(Some(operator)).await;
        record.expect("the way to the server is not lost");
        identities.expect_err("the cache stays shut")
    }

    fn policy(&self, name: &str) -> PathBuf {
        self.policies.path().join(name)
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.policy(name)).expect("removed");
    }

    fn version(&self) -> u8 {
        std::fs::read(self.directory.path().join(FILE_NAME)).expect("there is a file")[9]
    }
}

fn pcr7() -> PcrSelection {
    "7".parse().expect("legal")
}

fn operator() -> PolicyOperator {
    PolicyOperator::new(&P256)
}

/// PCR 7 after [`Device::boot`].
fn value(state: u8) -> [u8; 32] {
    let extended = [[0; 32], [state; 32]].concat();
    digest(&SHA256, &extended).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn epoch(number: u32) -> Epoch {
    number.try_into().expect("legal")
}

//= TPM-45 FLT-T6
#[tokio::test]
async fn a_signed_update_opens_what_was_sealed_before_it_and_is_sealed_anew() {
    let keys: [&[&str]; 3] = [
        &P256,
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"],
    ];
    for key in keys {
        let (mut device, operator) = (Device::new(), PolicyOperator::new(key));
        device.boot(1);
        device.store(Some(&operator), "/before").await;
        device.expect(Some(&operator), "/before").await;
        operator.sign(&device.policy("update.json"), 1, 7, value(2));

        device.boot(2);
        let mut cache = device.cache(Some(&operator)).await;
        assert_eq!(path_of(&restore(&mut cache).await.0.expect("signed")), "/before");
        assert!(cache.is_to_be_sealed_anew());
        let (record, identities) = content("/after");
        cache.store(&record, &identities, true).await.expect("stored");
        assert!(!cache.is_to_be_sealed_anew());
        device.remove("update.json");
        device.boot(2);
        device.expect(Some(&operator), "/after").await;
        device.boot(1);
        assert!(
            matches!(device.refusal(&operator).await, CacheRefusal::ChangedPcrs(_)),
            "the old state was not signed"
        );
    }
}

//= FLT-T6
#[tokio::test]
async fn an_update_that_was_not_signed_costs_identities_until_they_are_sealed_anew() {
    let (mut device, operator) = (Device::new(), operator());
    device.boot(1);
    device.store(Some(&operator), "/before").await;
    operator.sign(&device.policy("other.json"), 1, 7, value(3));
    device.boot(2);
    assert!(matches!(device.refusal(&operator).await, CacheRefusal::ChangedPcrs(_)));
    // What the server gives again is kept for the state of now, and for the next one that is signed.
    device.store(Some(&operator), "/again").await;
    device.expect(Some(&operator), "/again").await;
    device.boot(3);
    device.expect(Some(&operator), "/again").await;
}

//= TPM-45
#[tokio::test]
async fn files_that_do_not_count_are_refused_by_name_and_open_nothing() {
    let (mut device, ours, theirs) = (Device::new(), operator(), operator());
    device.boot(1);
    device.store(Some(&ours), "/kept").await;
    theirs.sign(&device.policy("other-key.json"), 1, 7, value(2));
    ours.sign(&device.policy("other-register.json"), 1, 4, value(2));
    let signed = ours.path("signed.json");
    ours.sign(&signed, 1, 7, value(2));
    let signed = std::fs::read_to_string(signed).expect("there is a policy");
    let policies = device.policies.path().to_owned();
    let put = |name: &str, text: &str| std::fs::write(policies.join(name), text).expect("written");
    put("cut.json", &signed[..signed.len() / 2]);
    put("huge.json", &(signed.clone() + &" ".repeat(MAX_POLICY_FILE_BYTES)));
    put("raised-epoch.json", &signed.replace("\"epoch\": 1", "\"epoch\": 2"));
    put("other-bank.json", &signed.replace("\"sha256\"", "\"sha384\""));
    let ours_now = ours.states(device.policies.path()).authority.fingerprint();
    let theirs_now = theirs.states(device.policies.path()).authority.fingerprint();
    let [ours_hex, theirs_hex] = [ours_now, theirs_now].map(|key| ironroot_text::hex::hex(&key));
    let forged = std::fs::read_to_string(device.policy("other-key.json")).expect("there is a policy");
    put("claims-our-key.json", &forged.replace(&theirs_hex, &ours_hex));

    device.boot(2);
    assert!(matches!(device.refusal(&ours).await, CacheRefusal::ChangedPcrs(_)));
    let read = device.states(&ours).read(PcrHash::Sha256, pcr7());
    assert!(read.good.is_empty());
    let refused = |name: &str| match read.refused.iter().find(|(file, _)| file == name) {
        Some((_, PolicyFileRefusal::Policy(refusal))) => refusal.clone(),
        other => panic!("{name}: {other:?}"),
    };
    use SignedPolicyRefusal::{Malformed, OtherKey, OtherRegisters, Signature, TooLarge};
    assert!(matches!(refused("other-key.json"), OtherKey { .. }));
    assert!(matches!(refused("other-register.json"), OtherRegisters { .. }));
    assert!(matches!(refused("other-bank.json"), OtherRegisters { .. }));
    assert!(matches!(refused("cut.json"), Malformed(_)));
    assert!(matches!(refused("huge.json"), TooLarge));
    assert!(matches!(refused("raised-epoch.json"), Signature));
    assert!(matches!(refused("claims-our-key.json"), Signature));
    // And the untouched one does count.
    put("signed.json", &signed);
    device.expect(Some(&ours), "/kept").await;
}

//= TPM-46
#[tokio::test]
async fn a_withdrawn_policy_that_is_put_back_opens_nothing() {
    let (mut device, operator) = (Device::new(), operator());
    device.boot(1);
    operator.sign(&device.policy("newest.json"), 3, 7, value(3));
    device.store(Some(&operator), "/kept").await;
    device.remove("newest.json");
    operator.sign(&device.policy("old.json"), 2, 7, value(2));
    device.boot(2);
    let refused = |refusal: CacheRefusal| match refusal {
        CacheRefusal::SignedPolicy { file, refusal } => (file, refusal),
        other => panic!("{other:?}"),
    };
    let withdrawn = SignedPolicyRefusal::Withdrawn { epoch: epoch(2), first: epoch(3) };
    assert_eq!(refused(device.refusal(&operator).await), ("old.json".to_owned(), withdrawn.clone()));

    // The cache was shut, and sealed anew: what it knew of epochs is not lost with it.
    device.boot(9);
    assert!(matches!(device.refusal(&operator).await, CacheRefusal::ChangedPcrs(_)));
    device.store(Some(&operator), "/again").await;
    device.boot(2);
    assert_eq!(refused(device.refusal(&operator).await).1, withdrawn);

    operator.sign(&device.policy("far.json"), 10, 7, value(2));
    device.remove("old.json");
    let far = SignedPolicyRefusal::TooFarAhead { epoch: epoch(10), last: epoch(9) };
    assert_eq!(refused(device.refusal(&operator).await).1, far);
    operator.sign(&device.policy("far.json"), 9, 7, value(2));
    device.expect(Some(&operator), "/again").await;
}

//= TPM-46
#[tokio::test]
async fn a_newer_epoch_on_the_device_withdraws_before_the_cache_is_sealed_anew() {
    let (mut device, operator) = (Device::new(), operator());
    device.boot(1);
    device.store(Some(&operator), "/kept").await;
    operator.sign(&device.policy("old.json"), 1, 7, value(2));
    operator.sign(&device.policy("newest.json"), 2, 7, value(3));
    device.boot(2);
    let CacheRefusal::SignedPolicy { file, refusal } = device.refusal(&operator).await else { panic!("not signed") };
    assert_eq!(file, "old.json");
    assert_eq!(refusal, SignedPolicyRefusal::Withdrawn { epoch: epoch(1), first: epoch(2) });
    device.boot(1);
    let mut cache = device.cache(Some(&operator)).await;
    restore(&mut cache).await.0.expect("the state that it was sealed in needs no signature");
    assert!(cache.is_to_be_sealed_anew(), "so that the chip knows, too");
}

//= TPM-46
#[tokio::test]
async fn the_chip_itself_refuses_epochs_and_states_that_it_was_not_sealed_for() {
    let (mut device, operator) = (Device::new(), operator());
    operator.sign(&device.policy("one.json"), 1, 7, value(2));
    operator.sign(&device.policy("two.json"), 2, 7, value(2));
    let states = device.states(&operator);
    let read = states.read(PcrHash::Sha256, pcr7()).good;
    let by_epoch =
        |number| vec![read.iter().find(|file| file.policy.epoch() == epoch(number)).expect("signed").policy.clone()];
    let (old, current) = (by_epoch(1), by_epoch(2));
    device.boot(1);
    let tpm = device.tpm().await;
    let authority = states.authority.clone();
    let seal =
        move |chip: &mut ironroot_attest::tpm::Chip| chip.seal_signed(b"secret", pcr7(), &authority, epoch(2), None);
    let (blob, branches) = tpm.run("seal", seal).await.expect("sealed");
    drop(tpm);
    device.boot(2);
    let tpm = device.tpm().await;
    let unseal = async |branches: &ironroot_attest::pcr_policy::Branches, signed: &[_]| {
        let (blob, branches, signed) = (blob.clone(), branches.clone(), signed.to_vec());
        tpm.run("unseal", move |chip| chip.unseal_signed(&blob, pcr7(), &branches, &signed)).await
    };
    let (secret, by) = unseal(&branches, &current).await.expect("signed for the epoch");
    assert_eq!((&secret[..], by), (&b"secret"[..], OpenedBy::Signed(0)));
    // A program that skips our checks: it has no branch to take, or takes one that was not sealed.
    let refused = unseal(&branches, &old).await.expect_err("no branch of that epoch");
    assert!(matches!(refused, TpmError::Refused(_)), "{refused:?}");
    let lowered = ironroot_attest::pcr_policy::Branches { first_epoch: epoch(1), ..branches.clone() };
    let refused = unseal(&lowered, &old).await.expect_err("not what it was sealed with");
    assert!(matches!(refused, TpmError::WrongPolicy(_)), "{refused:?}");
    let present = old[0].policy();
    let elsewhere = ironroot_attest::pcr_policy::Branches { present, ..branches.clone() };
    let refused = unseal(&elsewhere, &[]).await.expect_err("another state than it was sealed in");
    assert!(matches!(refused, TpmError::WrongPolicy(_)), "{refused:?}");
    assert!(matches!(unseal(&branches, &[]).await, Err(TpmError::UnsignedState { .. })));
}

#[tokio::test]
async fn a_cache_is_taken_over_when_the_key_comes_changes_or_goes() {
    let (mut device, first, second) = (Device::new(), operator(), operator());
    device.boot(1);
    device.store(None, "/plain").await;
    assert_eq!(device.version(), 3);
    for (before, now, version) in [("/plain", Some(&first), 4), ("/signed", Some(&second), 4), ("/signed", None, 3)] {
        let mut cache = device.cache(now).await;
        assert_eq!(path_of(&restore(&mut cache).await.0.expect("nothing is lost")), before);
        assert!(cache.is_to_be_sealed_anew());
        let (record, identities) = content("/signed");
        cache.store(&record, &identities, true).await.expect("stored");
        assert_eq!(device.version(), version);
        let mut cache = device.cache(now).await;
        restore(&mut cache).await.0.expect("it opens");
        assert!(!cache.is_to_be_sealed_anew(), "once");
    }
    device.boot(2);
    assert!(matches!(device.restore(None).await.0, Err(CacheRefusal::ChangedPcrs(_))));
}

#[tokio::test]
async fn a_key_that_the_chip_cannot_verify_with_costs_nothing_but_the_signed_states() {
    let operator = PolicyOperator::new(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"]);
    let mut device = Device::new();
    device.boot(1);
    device.store(Some(&operator), "/kept").await;
    assert_eq!(device.version(), 3, "sealed to the registers alone");
    device.expect(Some(&operator), "/kept").await;
    operator.sign(&device.policy("update.json"), 1, 7, value(2));
    device.boot(2);
    assert!(matches!(device.refusal(&operator).await, CacheRefusal::ChangedPcrs(_)));
}

#[tokio::test]
async fn an_older_cache_stays_worthless_however_much_is_signed() {
    let (mut device, operator) = (Device::new(), operator());
    let file = device.directory.path().join(FILE_NAME);
    device.boot(1);
    device.store(Some(&operator), "/old").await;
    let old = std::fs::read(&file).expect("there is a file");
    device.store(Some(&operator), "/new").await;
    operator.sign(&device.policy("update.json"), 1, 7, value(2));
    device.boot(2);
    std::fs::write(&file, old).expect("put back");
    let mut cache = device.cache(Some(&operator)).await;
    let opened = cache.open().await.expect("opened").expect("there is a file");
    let refused = cache.identities(&opened, &trust_domain()).await;
    assert!(matches!(refused, Err(CacheRefusal::RolledBack { .. })), "{refused:?}");
}
