//! Rate limits per source address, as SPIRE has them: a caller over the rate waits; only a wait past the deadline is
//! refused. They bound what a stranger can make the server compute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

/// Longest time a call is held back before it is refused. Stock agents give an RPC 30 s.
const LONGEST_WAIT: Duration = Duration::from_secs(25);
/// Addresses remembered per bucket; past it, addresses whose bucket is full again are forgotten.
const MAX_ADDRESSES: usize = 65_536;

/// The buckets. Rates are per second and per source address. Source: SPIRE's documented defaults.
#[derive(Debug)]
pub struct Limits {
    attestation: Option<Bucket>,
    signing: Option<Bucket>,
    status: Bucket,
}

impl Limits {
    /// `attestation` and `signing` are the configuration's `ratelimit` switches.
    pub fn new(attestation: bool, signing: bool) -> Self {
        Self {
            attestation: attestation.then(|| Bucket::new(1)),
            signing: signing.then(|| Bucket::new(500)),
            status: Bucket::new(10),
        }
    }

    /// Waits for the right to one AttestAgent.
    pub async fn attestation(&self, address: Option<IpAddr>) -> Result<(), Status> {
        wait(self.attestation.as_ref(), address, 1).await
    }

    /// Waits for the right to have `requests` CSRs signed.
    pub async fn signing(&self, address: Option<IpAddr>, requests: usize) -> Result<(), Status> {
        wait(self.signing.as_ref(), address, requests).await
    }

    /// Waits for the right to one PostStatus.
    pub async fn status(&self, address: Option<IpAddr>) -> Result<(), Status> {
        wait(Some(&self.status), address, 1).await
    }
}

async fn wait(bucket: Option<&Bucket>, address: Option<IpAddr>, tokens: usize) -> Result<(), Status> {
    let (Some(bucket), Some(address)) = (bucket, address) else { return Ok(()) };
    match bucket.take(address, tokens, Instant::now()) {
        Some(delay) => {
            tokio::time::sleep(delay).await;
            Ok(())
        }
        None => Err(Status::resource_exhausted("rate limit exceeded; retry later")),
    }
}

/// A token bucket per address: `rate` tokens a second, at most `rate` saved up.
#[derive(Debug)]
struct Bucket {
    rate: u32,
    /// When the address will have used up what it has taken so far.
    paid_until: Mutex<HashMap<IpAddr, Instant>>,
}

impl Bucket {
    fn new(rate: u32) -> Self {
        Self { rate, paid_until: Mutex::default() }
    }

    /// Takes `tokens` and says how long to wait for them, or nothing if that is too long or more than a burst.
    fn take(&self, address: IpAddr, tokens: usize, now: Instant) -> Option<Duration> {
        let tokens = u32::try_from(tokens).ok().filter(|t| *t <= self.rate)?;
        let mut addresses = self.paid_until.lock().expect("no panic while held: arithmetic on instants only");
        if addresses.len() >= MAX_ADDRESSES {
            addresses.retain(|_, paid_until| *paid_until > now);
        }
        let burst = Duration::from_secs(1);
        let cost = burst * tokens / self.rate;
        let paid_until = addresses.get(&address).copied().unwrap_or(now).max(now) + cost;
        let delay = paid_until.saturating_duration_since(now).saturating_sub(burst);
        if delay > LONGEST_WAIT {
            return None;
        }
        addresses.insert(address, paid_until);
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn third_attestation_in_a_second_waits_two_seconds() {
        let (bucket, now) = (Bucket::new(1), Instant::now());
        let delays: Vec<_> = (0..3).map(|_| bucket.take(ADDRESS, 1, now).expect("queued").as_secs()).collect();
        assert_eq!(delays, [0, 1, 2]);
        assert_eq!(bucket.take(ADDRESS, 1, now + Duration::from_secs(10)), Some(Duration::ZERO));
    }

    #[test]
    fn refuses_more_than_a_burst_and_waits_past_the_deadline() {
        let (bucket, now) = (Bucket::new(1), Instant::now());
        assert_eq!(bucket.take(ADDRESS, 2, now), None);
        let queued = (0..100).filter(|_| bucket.take(ADDRESS, 1, now).is_some()).count();
        assert_eq!(queued as u64, LONGEST_WAIT.as_secs() + 1);
    }

    #[test]
    fn addresses_do_not_share_a_bucket() {
        let (bucket, now) = (Bucket::new(500), Instant::now());
        assert_eq!(bucket.take(ADDRESS, 500, now), Some(Duration::ZERO));
        assert_eq!(bucket.take(std::net::Ipv6Addr::LOCALHOST.into(), 500, now), Some(Duration::ZERO));
        assert_eq!(bucket.take(ADDRESS, 500, now), Some(Duration::from_secs(1)));
    }
}
