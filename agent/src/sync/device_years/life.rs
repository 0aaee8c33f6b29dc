//! A device's life: what the loop does in its order (`sync::turn`, `sync::restore`), each decision by the room that makes it.

mod judging;
mod keeping;
mod starting;
mod turning;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use ironroot_api::TrustDomain;

use super::truth::Knows;
use super::world::World;
use super::{Fault, Figures};
use crate::identities::Identities;
use crate::sealed_cache::{Changes, Debts, Seen};
use crate::server_answers::{EntryTerms, TrustBundle};
use crate::sync::Ledger;
use crate::trusted_time::{Keeper, Moment, Span, TimeRecord};

/// The entries of the device.
const ENTRIES: [&str; 2] = ["/web", "/db"];
/// One part in this many of an SVID's life is the interval of polls, and of the back-off's first pause.
const POLLS: i64 = 6;
const FIRST_PAUSE: i64 = 200;
/// As the loop's: the longest pause is so many times the first.
const BACKOFF_CAP: u32 = 12;

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

/// One authority for all lives: who signed is not what is looked at.
static BUNDLE: LazyLock<Arc<TrustBundle>> = LazyLock::new(|| {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("params");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&rcgen::KeyPair::generate().expect("key")).expect("root");
    Arc::new(TrustBundle::new(&td(), [(&root.der()[..], false)]).expect("bundle"))
});

/// A file of the sealed cache.
#[derive(Clone, Debug)]
struct File {
    generation: u64,
    time: TimeRecord,
    boot_id: String,
    /// With what is left of each SVID, by elapsed time, and whether it had come from a server in the run that wrote it.
    entries: Vec<(EntryTerms, Option<(Span, i64)>)>,
    is_misled: bool,
    /// The last word of a server in it is ahead of the truth.
    server_was_ahead: bool,
    /// By how much the kernel's clock was wrong.
    kernel_error: i64,
}

/// What survives a power cut.
#[derive(Debug, Default)]
struct Flash {
    disk: Option<File>,
    counter: u64,
}

/// A process.
#[derive(Debug)]
struct Run {
    keeper: Keeper,
    ledger: Ledger,
    debts: Debts,
    seen: Seen,
    changes: Changes,
    failures: u32,
    next_poll: Instant,
    unwritten: Option<Instant>,
    published: Identities,
    /// What the SVIDs that were there at the start have to go by.
    knows: Knows,
    /// Those of this run: not from the cache.
    fresh: BTreeSet<(i64, i64)>,
    /// When the newest SVID came that is not written yet, by the monotonic clock.
    unkept_since: Option<Instant>,
    /// What was known of the time at the start; for a fault.
    stale_moment: Moment,
    right_since: Option<i64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Life {
    fault: Fault,
    world: World,
    flash: Flash,
    run: Run,
    ttl: i64,
    revision: i64,
    is_misled: bool,
    /// Spans of SVIDs whose issuer's clock was wrong.
    dishonest: BTreeSet<(i64, i64)>,
    /// Those of SVIDs that were received in this boot.
    of_this_boot: BTreeSet<(i64, i64)>,
    cut_next_write: bool,
    figures: Figures,
}

impl Life {
    pub fn new(seed: u64, fault: Fault) -> Self {
        let mut world = World::new(seed);
        let ttl = world.random.one_of(&[8 * 3600, 24 * 3600, 24 * 3600, 7 * 24 * 3600]);
        let flash = Flash { disk: None, counter: 1 };
        let run = Run::start(&mut world);
        let figures = Figures { boots: 1, ..Figures::default() };
        Self {
            fault,
            world,
            flash,
            run,
            ttl,
            revision: 0,
            is_misled: false,
            dishonest: BTreeSet::new(),
            of_this_boot: BTreeSet::new(),
            cut_next_write: false,
            figures,
        }
    }

    /// Lives for so many seconds, or until something is broken.
    pub fn live(mut self, seconds: i64) -> Figures {
        let (began, end) = (self.world.now, self.world.now + seconds);
        while self.world.now < end && self.figures.is_clean() {
            self.turn();
            self.rest(end);
        }
        self.figures.seconds = self.world.now - began;
        self.figures
    }

    fn moment(&self) -> Moment {
        Moment::new(self.run.keeper, self.world.reading())
    }

    fn unit(&mut self) -> f64 {
        self.world.random.below(1001) as f64 / 1000.0
    }
}
