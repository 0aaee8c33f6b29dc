//! The task that keeps what is served in step with what the servers' loops publish.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use ironroot_api::TrustDomain;
use ironroot_shell::describe;
use tokio::sync::watch;
use tracing::error;

use super::{Bans, Share, United, unite};
use crate::bundle_source::{BundleSource, read_bundle};
use crate::config::Bootstrap;
use crate::identities::Identities;
use crate::report::Report;
use crate::server_answers::TrustBundle;
use crate::trusted_time::{Jumps, TrustedTime};

/// One server's loop, as it is followed.
#[derive(Debug)]
pub struct Source {
    /// What it publishes.
    pub identities: watch::Receiver<Arc<Identities>>,
    /// What it says of itself.
    pub report: watch::Receiver<Report>,
    /// Its authorities as the operator gave them at the start.
    configured: Option<Arc<TrustBundle>>,
}

/// See the module.
#[derive(Debug)]
pub struct Follower {
    trust_domain: TrustDomain,
    sources: Vec<Source>,
    bans: Bans,
    time: TrustedTime,
    jumps: Jumps,
    publisher: watch::Sender<Arc<Identities>>,
    /// The bundles of the last turn, and their union: what has not changed is the same for whoever compares.
    bundle: (Vec<Arc<TrustBundle>>, Option<Arc<TrustBundle>>),
}

impl Follower {
    /// Follows these, in the order of the servers, and publishes to `publisher`. The time: by `time`, whose clocks may jump.
    pub fn new(
        trust_domain: TrustDomain,
        sources: Vec<Source>,
        bans: Bans,
        (time, jumps): (TrustedTime, Jumps),
        publisher: watch::Sender<Arc<Identities>>,
    ) -> Self {
        Self { trust_domain, sources, bans, time, jumps, publisher, bundle: (Vec::new(), None) }
    }

    /// Until the loops have ended.
    pub async fn run(mut self) {
        let mut bans = self.bans.watch();
        loop {
            bans.mark_unchanged();
            let (shares, told): (Vec<Share>, Vec<Told>) = self.sources.iter_mut().map(Source::share).unzip();
            let again_at = self.publish(&shares);
            loop {
                let pause = again_at.map_or(Duration::MAX, |at| self.until(at));
                let changed = select_all(self.sources.iter_mut().map(|source| Box::pin(source.changed())));
                let said = tokio::select! {
                    (said, ..) = changed => said,
                    _ = bans.changed() => Said::Bans,
                    () = tokio::time::sleep(pause) => Said::Nothing,
                    () = self.jumps.next() => Said::Nothing,
                };
                let is_another = match said {
                    Said::Identities | Said::Bans => true,
                    Said::Report => self.sources.iter().zip(&told).any(|(source, was)| !source.told().is_as(was)),
                    Said::Nothing => again_at.is_some_and(|at| at <= self.time.moment().own()),
                    Said::Ended => return,
                };
                if is_another {
                    break;
                }
            }
        }
    }

    fn until(&self, at: i64) -> Duration {
        let seconds = at.saturating_sub(self.time.moment().own()).max(1);
        Duration::from_secs(seconds.unsigned_abs())
    }

    /// When to do it again though nothing changes.
    fn publish(&mut self, shares: &[Share]) -> Option<i64> {
        let (bundle, now) = (self.union_of(shares), self.time.moment().own());
        match unite(&self.trust_domain, shares, bundle, self.bans.are_there(), now) {
            Ok(United { identities, again_at }) => {
                self.publisher.send_replace(Arc::new(identities));
                again_at
            }
            Err(error) => {
                error!(error = %describe(&error), "the servers' identities cannot be published together; the last ones stay");
                None
            }
        }
    }

    fn union_of(&mut self, shares: &[Share]) -> Option<Arc<TrustBundle>> {
        let bundles = shares.iter().filter_map(|share| share.identities.bundle().or(share.known.as_ref()));
        let bundles: Vec<_> = bundles.cloned().collect();
        let is_same =
            |(known, bundle): (&Arc<TrustBundle>, &Arc<TrustBundle>)| Arc::ptr_eq(known, bundle) || known == bundle;
        if bundles.len() != self.bundle.0.len() || !self.bundle.0.iter().zip(&bundles).all(is_same) {
            match TrustBundle::union(&bundles) {
                Ok(union) => self.bundle = (bundles, union),
                Err(error) => {
                    error!(error = %describe(&error), "the servers' bundles cannot be put together; the last one stays")
                }
            }
        }
        self.bundle.1.clone()
    }
}

/// What there is news of.
enum Said {
    Identities,
    Report,
    Bans,
    /// Time has passed, or has jumped.
    Nothing,
    /// A loop has come to its end.
    Ended,
}

impl Source {
    /// Reads the file with the server's authorities, if the operator has given one. One that cannot be read is the loop's to tell.
    pub fn new(
        identities: watch::Receiver<Arc<Identities>>,
        report: watch::Receiver<Report>,
        bootstrap: &Bootstrap,
        trust_domain: &TrustDomain,
    ) -> Self {
        let configured = match bootstrap {
            Bootstrap::TrustBundle(BundleSource::File { path, format }) => {
                read_bundle(path, *format, trust_domain).ok().map(Arc::new)
            }
            // What has to be fetched is the loop's to fetch, and to report.
            Bootstrap::TrustBundle(_) | Bootstrap::Insecure => None,
        };
        Self { identities, report, configured }
    }

    fn share(&mut self) -> (Share, Told) {
        let identities = self.identities.borrow_and_update().clone();
        let report = self.report.borrow_and_update();
        let told = Told::of(&report);
        // What the server itself has said once goes before what an image was made with years ago.
        let known = report.bundle.clone().or_else(|| self.configured.clone());
        let known = known.filter(|_| identities.bundle().is_none());
        (Share { identities, known, is_away: told.is_away }, told)
    }

    fn told(&self) -> Told {
        Told::of(&self.report.borrow())
    }

    async fn changed(&mut self) -> Said {
        let ended = |_| Said::Ended;
        tokio::select! {
            changed = self.identities.changed() => changed.map_or_else(ended, |()| Said::Identities),
            changed = self.report.changed() => changed.map_or_else(ended, |()| Said::Report),
        }
    }
}

/// What of a loop's report decides what is served.
struct Told {
    is_away: bool,
    bundle: Option<Arc<TrustBundle>>,
}

impl Told {
    fn of(report: &Report) -> Self {
        Self { is_away: report.failures > 0, bundle: report.bundle.clone() }
    }

    fn is_as(&self, other: &Self) -> bool {
        let bundles = (self.bundle.as_ref().map(Arc::as_ptr), other.bundle.as_ref().map(Arc::as_ptr));
        self.is_away == other.is_away && bundles.0 == bundles.1
    }
}
