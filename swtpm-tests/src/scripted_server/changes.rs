//! How a scripted server tells of changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ironroot_api::pb::change::{Delta, WatchChangesRequest, WatchChangesResponse};
use ironroot_api::pb::types::Entry;
use ironroot_api::view::{BundleName, ViewName};
use tokio::sync::mpsc;
use tonic::Status;

use super::services::Services;
use super::{Play, PushPlay, entry, lock};

/// What is wrong with what it says has changed, from the second message on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaLie {
    /// What a right server says.
    Honest,
    /// It leads somewhere else than it says.
    WrongView,
    /// It names no view.
    NoView,
    /// One message is missing.
    OutOfOrder,
    /// The same message comes twice.
    Repeated,
    /// Larger than any message may be.
    Oversized,
    /// More entries than an agent has, two bytes each.
    Amplified,
    /// Also an entry of another trust domain, rightly counted.
    Foreign,
    /// A word that does not say what has changed.
    Word,
    /// It leads somewhere else than it says, as often as it can.
    Flood,
}

type Words = mpsc::Sender<Result<WatchChangesResponse, Status>>;
type View = BTreeMap<String, Entry>;

pub(super) async fn tell(play: Arc<Play>, push: PushPlay, asked: WatchChangesRequest, words: Words) {
    match push {
        PushPlay::Mute => words.closed().await,
        PushPlay::Deltas(lie) => tell_deltas(play, lie, asked, words).await,
        _ => tell_words(play, push, words).await,
    }
}

async fn tell_words(play: Arc<Play>, push: PushPlay, words: Words) {
    let mut pushed = play.pushed.subscribe();
    loop {
        let revision = *pushed.borrow_and_update();
        let word = WatchChangesResponse { revision, ..Default::default() };
        if words.send(Ok(word)).await.is_err() || push == PushPlay::Broken {
            return;
        }
        if push == PushPlay::Flood {
            continue;
        }
        tokio::select! {
            _ = pushed.changed() => {}
            () = words.closed() => return,
        }
    }
}

async fn tell_deltas(play: Arc<Play>, lie: DeltaLie, asked: WatchChangesRequest, words: Words) {
    let mut pushed = play.pushed.subscribe();
    let mut telling = Telling { view: view(&play), bundle: BundleName::of(&bundle(&play)), number: 1 };
    let mut next = Some(telling.first(&play, &asked));
    loop {
        let revision = *pushed.borrow_and_update();
        let delta = next.take().unwrap_or_else(|| telling.next(&play));
        let is_first = delta.number == 1;
        for delta in if is_first { vec![Some(delta)] } else { told(lie, delta, &mut telling) } {
            if words.send(Ok(WatchChangesResponse { revision, delta, ..Default::default() })).await.is_err() {
                return;
            }
        }
        if lie == DeltaLie::Flood {
            continue;
        }
        tokio::select! {
            _ = pushed.changed() => {}
            () = words.closed() => return,
        }
    }
}

/// What the agent was told last.
struct Telling {
    view: View,
    bundle: BundleName,
    number: u64,
}

impl Telling {
    fn first(&self, play: &Arc<Play>, asked: &WatchChangesRequest) -> Delta {
        let named = name(&self.view);
        let (goes_on, bundle) = (asked.view == named.as_bytes(), bundle(play));
        let told = (goes_on && asked.bundle != self.bundle.as_bytes()).then_some(bundle);
        Delta { number: 1, full_sync: !goes_on, bundle: told, ..leading_to(named) }
    }

    fn next(&mut self, play: &Arc<Play>) -> Delta {
        self.number += 1;
        let (now, bundle) = (view(play), bundle(play));
        let entries = now.values().filter(|entry| self.view.get(&entry.id) != Some(entry)).cloned().collect();
        let removed = self.view.keys().filter(|id| !now.contains_key(*id)).cloned().collect();
        let bundle_name = BundleName::of(&bundle);
        let bundle = (bundle_name != self.bundle).then_some(bundle);
        let delta = Delta { number: self.number, entries, removed, bundle, ..leading_to(name(&now)) };
        (self.view, self.bundle) = (now, bundle_name);
        delta
    }
}

/// `delta` as the lie has it. None: a word that says nothing.
fn told(lie: DeltaLie, delta: Delta, telling: &mut Telling) -> Vec<Option<Delta>> {
    let many = |count: usize, id: fn(usize) -> String| (0..count).map(move |n| Entry { id: id(n), ..Entry::default() });
    let lied = match lie {
        DeltaLie::Honest => delta,
        DeltaLie::WrongView | DeltaLie::Flood => Delta { view: name(&View::new()).as_bytes().to_vec().into(), ..delta },
        DeltaLie::NoView => Delta { view: Default::default(), ..delta },
        DeltaLie::OutOfOrder => {
            telling.number += 1;
            Delta { number: telling.number, ..delta }
        }
        DeltaLie::Repeated => return vec![Some(delta.clone()), Some(delta)],
        DeltaLie::Oversized => Delta { entries: many(1, |_| "x".repeat(300 * 1024)).collect(), ..delta },
        DeltaLie::Amplified => Delta { entries: many(100_000, |_| String::new()).collect(), ..delta },
        DeltaLie::Word => return vec![None],
        DeltaLie::Foreign => with_foreign(delta, telling),
    };
    vec![Some(lied)]
}

fn with_foreign(mut delta: Delta, telling: &mut Telling) -> Delta {
    let mut foreign = entry("foreign", "/somebody", 1);
    foreign.spiffe_id.iter_mut().for_each(|id| id.trust_domain = "other.example".to_owned());
    telling.view.insert(foreign.id.clone(), foreign.clone());
    delta.entries.push(foreign);
    Delta { view: name(&telling.view).as_bytes().to_vec().into(), ..delta }
}

fn leading_to(view: ViewName) -> Delta {
    Delta { view: view.as_bytes().to_vec().into(), ..Delta::default() }
}

fn view(play: &Arc<Play>) -> View {
    lock(&play.script).entries.iter().map(|entry| (entry.id.clone(), entry.clone())).collect()
}

fn name(view: &View) -> ViewName {
    ViewName::of(view.values().map(|entry| (entry.id.as_str(), entry.revision_number, entry.created_at)))
}

fn bundle(play: &Arc<Play>) -> ironroot_api::pb::types::Bundle {
    Services(play.clone()).bundle()
}
