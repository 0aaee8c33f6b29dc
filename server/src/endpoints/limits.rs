//! Rate limits, as SPIRE has them per source address: a caller over the rate waits; only a wait past the deadline is refused.
//! They bound what a stranger can make the server compute.
//!
//! Devices of the registry, and devices with a certificate that attested before, have a rate each, so that a fleet behind one
//! address comes back within seconds.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ironroot_shell::token_bucket::{Rate, TokenBucket};
use tonic::Status;

use super::address::AddressBlock;

/// Longest time a call is held back before it is refused. Stock agents give an RPC 30 s.
const LONGEST_WAIT: Duration = Duration::from_secs(25);
/// Sources remembered per bucket. Past it those whose bucket is full again are forgotten; if there are none, newcomers share
/// one bucket.
const MAX_SOURCES: usize = 65_536;
/// How often those to be forgotten are looked for: that walks over all of them.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Attestations per second: of one known device, and of all unknown ones and join tokens of one address. SPIRE's, for the latter.
const ATTESTATIONS: u32 = 1;
/// Attestations per second of all known devices behind one address: about what two cores can do. A fleet behind one NAT is
/// limited device by device; this bounds who knows the public keys of a fleet and has none of its chips.
const ATTESTATIONS_OF_KNOWN_DEVICES: u32 = 2000;

/// Tokens of other issuers per second that one address may have looked at: a signature of RSA verified for each takes some 30 us.
const EXCHANGES: u32 = 20;
/// Tokens of one issuer per second that are exchanged: more than a large CI begins of jobs.
const EXCHANGES_OF_ISSUER: u32 = 100;

/// The buckets. Rates are per second and per source address. Source: SPIRE's documented defaults.
#[derive(Debug)]
pub struct Limits {
    attestation: Option<AttestationLimits>,
    signing: Option<Bucket<AddressBlock>>,
    status: Bucket<AddressBlock>,
    publishing: Bucket<AddressBlock>,
    exchanges: Bucket<AddressBlock>,
    /// By what the configuration calls an issuer.
    exchanges_of_issuer: Bucket<String>,
}

#[derive(Debug)]
struct AttestationLimits {
    by_address: Bucket<AddressBlock>,
    known_by_address: Bucket<AddressBlock>,
    /// A device that is not there itself cannot be kept from attesting by somebody else who shows its public key.
    by_device: Bucket<(AddressBlock, [u8; 32])>,
}

impl Limits {
    /// `attestation` and `signing` are the configuration's `ratelimit` switches.
    pub fn new(attestation: bool, signing: bool) -> Self {
        Self {
            attestation: attestation.then(|| AttestationLimits {
                by_address: Bucket::new(ATTESTATIONS),
                known_by_address: Bucket::new(ATTESTATIONS_OF_KNOWN_DEVICES),
                by_device: Bucket::new(ATTESTATIONS),
            }),
            signing: signing.then(|| Bucket::new(500)),
            status: Bucket::new(10),
            publishing: Bucket::new(500),
            exchanges: Bucket::new(EXCHANGES),
            exchanges_of_issuer: Bucket::new(EXCHANGES_OF_ISSUER),
        }
    }

    /// Waits for the right to one AttestAgent; `known_device` is the hash of the endorsement key or of the certificate, if the
    /// registry knows it.
    pub async fn attestation(&self, address: Option<IpAddr>, known_device: Option<[u8; 32]>) -> Result<(), Status> {
        let (Some(limits), Some(address)) = (&self.attestation, block(address)) else { return Ok(()) };
        match known_device {
            Some(device) => {
                wait(&limits.by_device, (address, device), 1).await?;
                wait(&limits.known_by_address, address, 1).await
            }
            None => wait(&limits.by_address, address, 1).await,
        }
    }

    /// Waits for the right to have `requests` CSRs signed.
    pub async fn signing(&self, address: Option<IpAddr>, requests: usize) -> Result<(), Status> {
        let (Some(bucket), Some(address)) = (&self.signing, block(address)) else { return Ok(()) };
        wait(bucket, address, requests).await
    }

    /// Waits for the right to one PostStatus.
    pub async fn status(&self, address: Option<IpAddr>) -> Result<(), Status> {
        let Some(address) = block(address) else { return Ok(()) };
        wait(&self.status, address, 1).await
    }

    /// Waits for the right to have one token of another issuer looked at.
    pub async fn exchange(&self, address: Option<IpAddr>) -> Result<(), Status> {
        let Some(address) = block(address) else { return Ok(()) };
        wait(&self.exchanges, address, 1).await
    }

    /// Waits for the right to have one proven token of that issuer exchanged: who has none takes nobody's place.
    pub async fn exchange_of(&self, issuer: &str) -> Result<(), Status> {
        wait(&self.exchanges_of_issuer, issuer.to_owned(), 1).await
    }

    /// Waits for the right to one PublishJWTAuthority. Source: SPIRE `pushJWTKeyLimit`.
    pub async fn publishing(&self, address: Option<IpAddr>) -> Result<(), Status> {
        let Some(address) = block(address) else { return Ok(()) };
        wait(&self.publishing, address, 1).await
    }
}

fn block(address: Option<IpAddr>) -> Option<AddressBlock> {
    address.map(AddressBlock::from)
}

async fn wait<K: Eq + Hash>(bucket: &Bucket<K>, source: K, tokens: usize) -> Result<(), Status> {
    match bucket.take(source, tokens, Instant::now()) {
        Some(delay) => {
            tokio::time::sleep(delay).await;
            Ok(())
        }
        None => Err(Status::resource_exhausted("rate limit exceeded; retry later")),
    }
}

/// A token bucket per source: `rate` tokens a second, at most `rate` saved up.
#[derive(Debug)]
struct Bucket<K> {
    rate: Rate,
    sources: Mutex<Sources<K>>,
}

#[derive(Debug)]
struct Sources<K> {
    buckets: HashMap<K, TokenBucket>,
    /// Of those who find no room.
    others: Option<TokenBucket>,
    swept: Option<Instant>,
}

impl<K: Eq + Hash> Bucket<K> {
    fn new(rate: u32) -> Self {
        let sources = Sources { buckets: HashMap::new(), others: None, swept: None };
        Self { rate: Rate::per_second(rate, rate), sources: Mutex::new(sources) }
    }

    /// Takes `tokens` and says how long to wait for them, or nothing if that is too long or more than a burst.
    fn take(&self, source: K, tokens: usize, now: Instant) -> Option<Duration> {
        let tokens = u32::try_from(tokens).ok()?;
        let mut sources = self.sources.lock().expect("no panic while held: arithmetic on instants only");
        sources.sweep(now);
        let known = sources.buckets.get(&source).copied();
        let has_room = known.is_some() || sources.buckets.len() < MAX_SOURCES;
        let mut bucket = if has_room { known } else { sources.others }.unwrap_or(TokenBucket::full(now));
        let delay = bucket.take(self.rate, tokens, LONGEST_WAIT, now)?;
        match has_room {
            true => drop(sources.buckets.insert(source, bucket)),
            false => sources.others = Some(bucket),
        }
        Some(delay)
    }
}

impl<K: Eq + Hash> Sources<K> {
    fn sweep(&mut self, now: Instant) {
        let is_due = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_INTERVAL);
        if self.buckets.len() >= MAX_SOURCES && is_due {
            self.swept = Some(now);
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tokens_are_looked_at_so_many_a_second_for_an_address_and_exchanged_so_many_for_an_issuer() {
        let (limits, one, other) = (Limits::new(true, true), [192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        // Taken of a time that does not come while this runs, however busy the machine is.
        let now = Instant::now() + Duration::from_secs(3600);
        let most = |rate: u32| (LONGEST_WAIT.as_secs() as u32 + 1) * rate;
        let looked_at = (0..1000).filter(|_| limits.exchanges.take(block_of(one), 1, now).is_some()).count();
        assert!((most(EXCHANGES) as usize).abs_diff(looked_at) <= 1, "{looked_at}");
        assert!(limits.exchange(Some(one)).await.is_err_and(|status| status.code() == tonic::Code::ResourceExhausted));
        assert!(limits.exchange(Some(other)).await.is_ok());
        let of = |issuer: &str| limits.exchanges_of_issuer.take(issuer.to_owned(), 1, now).is_some();
        let exchanged = (0..5000).filter(|_| of("github")).count();
        assert!((most(EXCHANGES_OF_ISSUER) as usize).abs_diff(exchanged) <= 1, "{exchanged}");
        assert!(of("gitlab") && limits.exchange_of("github").await.is_err());
    }

    fn block_of(address: IpAddr) -> AddressBlock {
        address.into()
    }

    //= TPM-39
    #[test]
    fn third_attestation_in_a_second_waits_two_seconds() {
        let (bucket, now) = (Bucket::new(1), Instant::now());
        let delays: Vec<_> = (0..3).map(|_| bucket.take(1, 1, now).expect("queued").as_secs()).collect();
        assert_eq!(delays, [0, 1, 2]);
        assert_eq!(bucket.take(1, 1, now + Duration::from_secs(10)), Some(Duration::ZERO));
    }

    #[test]
    fn refuses_more_than_a_burst_and_waits_past_the_deadline() {
        let (bucket, now) = (Bucket::new(1), Instant::now());
        assert_eq!(bucket.take(1, 2, now), None);
        let queued = (0..100).filter(|_| bucket.take(1, 1, now).is_some()).count();
        assert_eq!(queued as u64, LONGEST_WAIT.as_secs() + 1);
    }

    #[test]
    fn sources_do_not_share_a_bucket() {
        let (bucket, now) = (Bucket::new(500), Instant::now());
        assert_eq!(bucket.take(1, 500, now), Some(Duration::ZERO));
        assert_eq!(bucket.take(2, 500, now), Some(Duration::ZERO));
        assert_eq!(bucket.take(1, 500, now), Some(Duration::from_secs(1)));
    }

    #[test]
    fn any_number_of_sources_takes_bounded_memory_and_leaves_those_alone_that_were_there() {
        let (bucket, now) = (Bucket::new(1), Instant::now());
        assert_eq!(bucket.take(0, 1, now), Some(Duration::ZERO));
        let let_in = (1..200_000).filter(|source| bucket.take(*source, 1, now).is_some()).count();
        assert!(let_in <= MAX_SOURCES + LONGEST_WAIT.as_secs() as usize);
        assert_eq!(bucket.sources.lock().expect("whole").buckets.len(), MAX_SOURCES);
        assert_eq!(bucket.take(0, 1, now + Duration::from_secs(1)), Some(Duration::ZERO));
    }

    //= FLT-A5 TPM-39
    #[tokio::test]
    async fn five_thousand_known_devices_behind_one_address_attest_within_seconds_and_unknown_ones_wait() {
        let limits = Limits::new(true, true);
        let address = Some(IpAddr::from([192, 0, 2, 1]));
        let began = Instant::now();
        let herd = (0..5000_u32).map(|device| {
            let mut ek_sha256 = [0; 32];
            ek_sha256[..4].copy_from_slice(&device.to_be_bytes());
            limits.attestation(address, Some(ek_sha256))
        });
        assert!(futures_util::future::join_all(herd).await.iter().all(Result::is_ok));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let strangers = (0..100).map(|_| limits.attestation(address, None));
        let mut strangers: futures_util::stream::FuturesUnordered<_> = strangers.collect();
        let first = futures_util::StreamExt::next(&mut strangers).await.expect("the first ones");
        assert!(first.is_ok() || first.is_err_and(|status| status.code() == tonic::Code::ResourceExhausted));
    }
}
