//! The sealed cache against a real TPM 2.0 emulator: what it gives back, and each reason to refuse it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_agent::sealed_cache::{CacheRefusal, FILE_NAME, MAX_CACHE_BYTES, SealedCache};
use ironroot_api::TrustDomain;
use ironroot_attest::node::tpm2::PcrSelection;
use ironroot_attest::tpm::{Chip, CounterAt, DEFAULT_COUNTER_INDEX, Tpm};
use ironroot_lab::cached::{Restored, content, path_of, restore, trust_domain};
use ironroot_lab::interposer::Interposer;
use ironroot_lab::small_disk::SmallDisk;
use ironroot_lab::swtpm::Swtpm;
use tempfile::TempDir;
use tss_esapi::handles::{AuthHandle, NvIndexHandle, NvIndexTpmHandle, PcrHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Provision;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest, DigestValues};

const UNSEAL: u32 = 0x15e;
/// The commands, Part 2 §6.5.2, of which a slow chip takes 5 to 200 ms for each.
const ASKED_FOR_IDENTITIES: [u32; 9] = [
    0x17a, // GetCapability: is it a TPM 2.0, and started; has somebody made the storage root key persistent.
    0x131, // CreatePrimary: nobody has.
    0x176, // StartAuthSession, salted to it.
    0x169, // NV_ReadPublic: the counter's index is there.
    0x169, // NV_ReadPublic: and its name, which the library takes from the first as it is told, says whose.
    0x14e, // NV_Read: the counter.
    0x157, // Load: the sealed object.
    0x17f, // PolicyPCR.
    UNSEAL,
];

/// One device: a chip and a data directory.
struct Device {
    chip: Swtpm,
    directory: TempDir,
}

impl Device {
    fn new() -> Self {
        Self { chip: Swtpm::start().expect("swtpm starts"), directory: tempfile::tempdir().expect("directory") }
    }

    /// As an agent that has just started.
    async fn cache(&self) -> SealedCache {
        self.cache_on(&self.chip, pcrs("7")).await
    }

    async fn cache_on(&self, chip: &Swtpm, pcrs: PcrSelection) -> SealedCache {
        let tpm = Tpm::open(chip.address()).await.expect("the TPM answers");
        SealedCache::new(tpm, self.directory.path(), pcrs, DEFAULT_COUNTER_INDEX)
    }

    async fn store(&self, path: &str, increment: bool) {
        let (record, identities) = content(path);
        self.cache().await.store(&record, &identities, increment).await.expect("stored");
    }

    async fn restore(&self) -> Restored {
        restore(&mut self.cache().await).await
    }

    /// Why nothing at all is restored.
    async fn refusal(&self) -> CacheRefusal {
        let mut cache = self.cache().await;
        match cache.open().await {
            Err(refusal) => refusal,
            Ok(None) => panic!("there is no file"),
            Ok(Some(file)) => {
                cache.record(&file, &trust_domain()).await.expect_err("the record is refused");
                cache.identities(&file, &trust_domain()).await.expect_err("the identities are refused")
            }
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join(FILE_NAME)
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.file()).expect("there is a file")
    }

    fn put(&self, bytes: &[u8]) {
        std::fs::write(self.file(), bytes).expect("written");
    }
}

/// In one run, whose first raise of the counter is two, and each after it is one.
async fn store_in(run: &mut SealedCache, path: &str) {
    let (record, identities) = content(path);
    run.store(&record, &identities, true).await.expect("stored");
}

fn pcrs(text: &str) -> PcrSelection {
    text.parse().expect("legal PCR selection")
}

/// Extends PCR 7 as other firmware would.
fn boot_something_else(chip: &Swtpm) {
    let mut values = DigestValues::new();
    values.set(HashingAlgorithm::Sha256, Digest::try_from([0x5a; 32].as_slice()).expect("a digest"));
    let mut esys = chip.esys().expect("the TPM answers");
    esys.execute_with_session(Some(AuthSession::Password), |esys| esys.pcr_extend(PcrHandle::Pcr7, values))
        .expect("extended");
}

/// Undefines the agent's counter, as whoever has the owner's password can.
fn remove_counter(chip: &Swtpm) {
    let index = NvIndexTpmHandle::new(DEFAULT_COUNTER_INDEX).expect("an NV index");
    let mut esys = chip.esys().expect("the TPM answers");
    let handle = esys.tr_from_tpm_public(TpmHandle::from(index)).expect("defined");
    esys.execute_with_session(Some(AuthSession::Password), |esys| {
        esys.nv_undefine_space(Provision::Owner, NvIndexHandle::from(handle))
    })
    .expect("removed");
}

fn copy_into(from: &Path, device: &Device) {
    std::fs::copy(from, device.file()).expect("copied");
}

#[tokio::test]
async fn gives_back_what_was_kept_after_a_power_cycle() {
    let mut device = Device::new();
    assert!(device.cache().await.open().await.expect("no file is no error").is_none());
    device.store("/workload", true).await;
    device.chip.power_cycle().expect("power cycle");
    let (identities, record) = device.restore().await;
    let identities = identities.expect("identities");
    assert_eq!(path_of(&identities), "/workload");
    let svid = identities.entries[0].1.as_ref().expect("svid");
    rcgen::KeyPair::try_from(&svid.key().pkcs8_der()[..]).expect("the private key came back");
    assert_eq!(record.expect("record").chain, [b"/workload"]);
    let text = device.bytes();
    assert!(!text.windows(9).any(|bytes| bytes == b"/workload"), "nothing is readable");
}

#[tokio::test]
async fn keeps_its_keys_over_many_writes() {
    let device = Device::new();
    device.store("/one", true).await;
    let mut cache = device.cache().await;
    restore(&mut cache).await.0.expect("identities");
    for path in ["/two", "/three"] {
        let (record, identities) = content(path);
        cache.store(&record, &identities, false).await.expect("stored");
    }
    assert_eq!(path_of(&device.restore().await.0.expect("identities")), "/three");
}

//= TPM-19 FLT-T4
#[tokio::test]
async fn refuses_a_copy_on_another_device() {
    let (device, thief) = (Device::new(), Device::new());
    device.store("/workload", true).await;
    copy_into(&device.file(), &thief);
    assert!(matches!(thief.refusal().await, CacheRefusal::OtherTpm(_)));
}

//= FLT-T4
#[tokio::test]
async fn refuses_what_a_cleared_chip_once_sealed() {
    let device = Device::new();
    device.store("/workload", true).await;
    let mut esys = device.chip.esys().expect("the TPM answers");
    esys.execute_with_session(Some(AuthSession::Password), |esys| esys.clear(AuthHandle::Lockout)).expect("cleared");
    drop(esys);
    assert!(matches!(device.refusal().await, CacheRefusal::OtherTpm(_)));
}

//= FLT-T6
#[tokio::test]
async fn refuses_identities_after_another_boot_but_keeps_the_way_to_the_server() {
    let mut device = Device::new();
    device.store("/workload", true).await;
    device.chip.power_cycle().expect("power cycle");
    boot_something_else(&device.chip);
    let (identities, record) = device.restore().await;
    assert!(matches!(identities, Err(CacheRefusal::ChangedPcrs(_))), "{identities:?}");
    assert_eq!(record.expect("the record is sealed to the chip alone").chain, [b"/workload"]);
    // The next write is sealed to what booted now.
    device.store("/updated", true).await;
    assert_eq!(path_of(&device.restore().await.0.expect("identities")), "/updated");
}

#[tokio::test]
async fn refuses_identities_sealed_to_other_pcrs_than_configured() {
    let device = Device::new();
    device.store("/workload", true).await;
    let mut cache = device.cache_on(&device.chip, pcrs("0,7")).await;
    assert!(matches!(restore(&mut cache).await.0, Err(CacheRefusal::OtherPcrs)));
}

//= TPM-37 FLT-T5
#[tokio::test]
async fn refuses_an_older_file_that_was_put_back() {
    let device = Device::new();
    device.store("/old", true).await;
    let old = device.bytes();
    device.store("/new", true).await;
    device.put(&old);
    assert!(matches!(device.refusal().await, CacheRefusal::RolledBack { .. }));
}

//= FLT-A2
#[tokio::test]
async fn a_power_cut_between_write_and_increment_loses_neither_file_nor_protection() {
    // Two equal chips: on one the counter was raised after the write, the other lost power in between.
    let device = Device::new();
    let mut run = device.cache().await;
    store_in(&mut run, "/old").await;
    let old = device.bytes();
    let mut interrupted = device.chip.clone_state().expect("a chip with the same state");
    store_in(&mut run, "/new").await;
    interrupted.power_cycle().expect("power cycle");
    let mut cache = device.cache_on(&interrupted, pcrs("7")).await;
    let file = cache.open().await.expect("opened").expect("there is a file");
    let identities = cache.identities(&file, &trust_domain()).await.expect("one ahead is good");
    assert_eq!(path_of(&identities), "/new");
    cache.finish_interrupted_write(&file).await.expect("incremented");
    let file = cache.open().await.expect("opened").expect("there is a file");
    cache.identities(&file, &trust_domain()).await.expect("still good");
    device.put(&old);
    let file = cache.open().await.expect("opened").expect("there is a file");
    let refused = cache.identities(&file, &trust_domain()).await;
    assert!(matches!(refused, Err(CacheRefusal::RolledBack { .. })), "{refused:?}");
}

/// On `chip`, whose counter is one behind the file in `device`.
async fn refuses_again(device: &Device, chip: &Swtpm, ahead: &[u8]) {
    device.put(ahead);
    let mut cache = device.cache_on(chip, pcrs("7")).await;
    let file = cache.open().await.expect("opened").expect("there is a file");
    let refused = cache.identities(&file, &trust_domain()).await;
    assert!(matches!(refused, Err(CacheRefusal::RolledBack { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_file_that_the_counter_was_never_raised_to_is_worthless_once_replaced_or_wiped() {
    let device = Device::new();
    let mut run = device.cache().await;
    store_in(&mut run, "/old").await;
    let chips = [(); 2].map(|()| device.chip.clone_state().expect("a chip with the same state"));
    store_in(&mut run, "/ahead").await;
    let ahead = device.bytes();
    let [mut replaced, mut wiped] = chips;

    replaced.power_cycle().expect("power cycle");
    let mut cache = device.cache_on(&replaced, pcrs("7")).await;
    cache.open().await.expect("opened").expect("there is a file");
    let (record, identities) = content("/next");
    cache.store(&record, &identities, false).await.expect("stored");
    assert_eq!(path_of(&restore(&mut cache).await.0.expect("identities")), "/next");
    refuses_again(&device, &replaced, &ahead).await;

    device.put(&ahead);
    wiped.power_cycle().expect("power cycle");
    let mut cache = device.cache_on(&wiped, pcrs("7")).await;
    cache.open().await.expect("opened").expect("there is a file");
    cache.wipe().await.expect("wiped");
    refuses_again(&device, &wiped, &ahead).await;
}

#[tokio::test]
async fn refuses_a_file_when_the_counter_is_gone() {
    let device = Device::new();
    device.store("/workload", true).await;
    remove_counter(&device.chip);
    assert!(matches!(device.refusal().await, CacheRefusal::CounterBehind { counter: None, .. }));
    // A new counter starts above the old one: what was kept before stays worthless.
    let old = device.bytes();
    device.store("/next", true).await;
    assert_eq!(path_of(&device.restore().await.0.expect("identities")), "/next");
    device.put(&old);
    assert!(matches!(device.refusal().await, CacheRefusal::RolledBack { .. }));
}

#[tokio::test]
async fn refuses_truncated_and_oversized_files_and_other_bytes() {
    let device = Device::new();
    device.store("/workload", true).await;
    let good = device.bytes();
    device.put(&good[..good.len() - 1]);
    assert!(matches!(device.refusal().await, CacheRefusal::Truncated));
    device.put(&[]);
    assert!(matches!(device.refusal().await, CacheRefusal::Truncated));
    device.put(&vec![0; MAX_CACHE_BYTES + 1]);
    assert!(matches!(device.refusal().await, CacheRefusal::TooLarge));
    device.put(&[good.as_slice(), b"x"].concat());
    assert!(matches!(device.refusal().await, CacheRefusal::Format));
    let mut version = good.clone();
    version[9] = 0x7f;
    device.put(&version);
    assert!(matches!(device.refusal().await, CacheRefusal::Version));
    device.put(&good);
    device.restore().await.0.expect("and still takes the good one");
}

#[tokio::test]
async fn refuses_flipped_bits_wherever_they_are() {
    let device = Device::new();
    device.store("/workload", true).await;
    let good = device.bytes();
    // Every 97th bit: in the header, the sealed keys and both sections.
    for bit in (0..good.len() * 8).step_by(97) {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        device.put(&flipped);
        let mut cache = device.cache().await;
        let Ok(Some(file)) = cache.open().await else { continue };
        let both = (cache.record(&file, &trust_domain()).await, cache.identities(&file, &trust_domain()).await);
        assert!(both.0.is_err() || both.1.is_err(), "bit {bit} of {}", good.len() * 8);
    }
    let mut last = good.clone();
    *last.last_mut().expect("not empty") ^= 1;
    device.put(&last);
    assert!(matches!(device.restore().await.0, Err(CacheRefusal::Altered)));
}

#[tokio::test]
async fn refuses_an_unreadable_file_and_content_of_another_trust_domain() {
    let device = Device::new();
    device.store("/workload", true).await;
    let mut cache = device.cache().await;
    let file = cache.open().await.expect("opened").expect("there is a file");
    let other = TrustDomain::new("other.example").expect("legal");
    let refusal = cache.identities(&file, &other).await.map(drop).expect_err("of another trust domain");
    assert!(matches!(refusal, CacheRefusal::OtherTrustDomain { .. }), "{refusal}");
    std::fs::remove_file(device.file()).expect("removed");
    std::os::unix::fs::symlink("/etc/hostname", device.file()).expect("link");
    assert!(matches!(device.refusal().await, CacheRefusal::Io(_)));
}

#[tokio::test]
async fn a_chip_that_is_away_refuses_and_comes_back() {
    let mut device = Device::new();
    device.store("/workload", true).await;
    let mut cache = device.cache().await;
    device.chip.stop().expect("stopped");
    let file = cache.open().await.expect("the file is there").expect("there is a file");
    assert!(matches!(cache.identities(&file, &trust_domain()).await, Err(CacheRefusal::Tpm(_))));
    device.chip.start_again().expect("started");
    assert_eq!(path_of(&device.restore().await.0.expect("identities")), "/workload");
}

//= TPM-37
#[tokio::test]
async fn a_wiped_cache_stays_wiped_whatever_is_put_back() {
    let device = Device::new();
    device.store("/workload", true).await;
    let copy = device.bytes();
    device.cache().await.wipe().await.expect("wiped");
    assert!(!device.file().exists());
    device.put(&copy);
    assert!(matches!(device.refusal().await, CacheRefusal::RolledBack { .. }));
    device.cache().await.wipe().await.expect("wiped");
    device.cache().await.wipe().await.expect("wiping nothing is no error");
}

//= FLT-A3
#[test]
fn a_full_or_read_only_disk_leaves_the_old_file() {
    let device = Device::new();
    SmallDisk::at(device.directory.path(), |disk| {
        block_on(device.store("/workload", true));
        disk.fill();
        let lost =
            || block_on(async { device.cache().await.store(&content("/lost").0, &content("/lost").1, true).await });
        lost().expect_err("the disk is full");
        assert_eq!(path_of(&block_on(device.restore()).0.expect("identities")), "/workload");
        disk.make_read_only();
        lost().expect_err("the disk is read-only");
        assert_eq!(path_of(&block_on(device.restore()).0.expect("identities")), "/workload");
    });
}

/// On this thread and threads that it starts, which see what it sees of the file system.
fn block_on<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(what)
}

//= FLT-T11
#[tokio::test]
async fn two_agents_on_one_chip_do_not_spoil_each_others_cache() {
    let device = Device::new();
    let other = tempfile::tempdir().expect("directory");
    let other_cache = || async {
        let tpm = Tpm::open(device.chip.address()).await.expect("the TPM answers");
        SealedCache::new(tpm, other.path(), pcrs("7"), DEFAULT_COUNTER_INDEX)
    };
    device.store("/first", true).await;
    let (record, identities) = content("/second");
    for _ in 0..3 {
        other_cache().await.store(&record, &identities, true).await.expect("stored");
    }
    assert_eq!(path_of(&device.restore().await.0.expect("the first one's is not rolled back")), "/first");
    assert_eq!(path_of(&restore(&mut other_cache().await).await.0.expect("nor the second one's")), "/second");
    // The same agent installed anew, its directory empty, finds its own counter again.
    std::fs::remove_file(other.path().join(FILE_NAME)).expect("removed");
    other_cache().await.store(&record, &identities, true).await.expect("stored");
    let tpm = Tpm::open(device.chip.address()).await.expect("the TPM answers");
    let third = tpm.run("look", |chip| chip.counter_of(DEFAULT_COUNTER_INDEX + 2, &[1; 32], None)).await;
    assert_eq!(third.expect("answers"), CounterAt::Free, "no index is left over");
}

#[tokio::test]
async fn a_start_without_the_server_asks_the_chip_nine_times_before_it_has_identities() {
    let mut device = Device::new();
    device.store("/first", true).await;
    device.chip.power_cycle().expect("the chip comes back");
    let bus = Interposer::before(&device.chip).expect("an interposer");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    bus.tamper(move |code, _| noted.lock().expect("nobody panics").push(code));

    let tpm = Tpm::open(bus.address()).await.expect("the TPM answers");
    let mut cache = SealedCache::new(tpm, device.directory.path(), pcrs("7"), DEFAULT_COUNTER_INDEX);
    let file = cache.open().await.expect("read").expect("there is a file");
    cache.identities(&file, &trust_domain()).await.expect("opened");
    // What comes after the secret, frees slots.
    let asked = asked.lock().expect("nobody panics").clone();
    let until_unsealed = asked.iter().position(|code| *code == UNSEAL).expect("it was unsealed");
    assert_eq!(asked[..=until_unsealed], ASKED_FOR_IDENTITIES);
}

/// Who has the disk and a boot stick for a moment: the owner's name is no secret, and a second counter begins at one while the first exists.
//= FLT-T5
#[tokio::test]
async fn a_counter_that_was_put_in_the_place_of_the_files_own_does_not_bring_an_older_file_back() {
    let device = Device::new();
    device.store("/removed", true).await;
    let old = device.bytes();
    let generation = u64::from_be_bytes(old[10..18].try_into().expect("eight bytes"));
    device.store("/second", true).await;
    device.store("/third", true).await;

    let name = [b"ironroot-agent cache in ", device.directory.path().as_os_str().as_encoded_bytes()].concat();
    let owner = digest(&SHA256, &name).as_ref().try_into().expect("32 bytes");
    let tpm = Tpm::open(device.chip.address()).await.expect("the TPM answers");
    let second = move |chip: &mut Chip| {
        chip.counter_define(DEFAULT_COUNTER_INDEX + 1, &owner)?;
        while chip.counter_increment(DEFAULT_COUNTER_INDEX + 1, None)? < generation {}
        chip.counter_of(DEFAULT_COUNTER_INDEX + 1, &owner, None)
    };
    let made = tpm.run("make another", second).await.expect("made");
    assert_eq!(made, CounterAt::Ours(Some(generation)), "as the older file says");
    drop(tpm);
    remove_counter(&device.chip);
    device.put(&old);
    assert!(matches!(device.refusal().await, CacheRefusal::OtherCounter { .. }));
}

//= FLT-T11
#[tokio::test]
async fn caches_that_are_first_written_at_the_same_time_have_a_counter_each() {
    let device = Device::new();
    let directories = [(); 3].map(|()| tempfile::tempdir().expect("directory"));
    let paths = ["/first", "/second", "/third"];
    let tpm = Tpm::open(device.chip.address()).await.expect("the TPM answers");
    let cache =
        |place: usize| SealedCache::new(tpm.clone(), directories[place].path(), pcrs("7"), DEFAULT_COUNTER_INDEX);
    for _ in 0..3 {
        let store = |place: usize| async move { store_in(&mut cache(place), paths[place]).await };
        tokio::join!(store(0), store(1), store(2));
    }
    for (place, path) in paths.into_iter().enumerate() {
        let (identities, _) = restore(&mut cache(place)).await;
        assert_eq!(path_of(&identities.expect("its own counter is as it left it")), path);
    }
}

#[tokio::test]
async fn a_counter_of_a_version_without_owners_goes_on_protecting_its_file() {
    let device = Device::new();
    let tpm = Tpm::open(device.chip.address()).await.expect("the TPM answers");
    tpm.run("count", |chip| chip.counter_increment(DEFAULT_COUNTER_INDEX, None)).await.expect("made");
    // What that version left: a file under this counter.
    device.put(b"a file");
    device.store("/first", false).await;
    let old = device.bytes();
    let next = tpm.run("look", |chip| chip.counter_of(DEFAULT_COUNTER_INDEX + 1, &[1; 32], None)).await;
    assert_eq!(next.expect("answers"), CounterAt::Free);
    device.store("/second", true).await;
    device.store("/third", true).await;
    device.put(&old);
    assert!(matches!(device.refusal().await, CacheRefusal::RolledBack { .. }));
}
