//! Several servers of a trust domain on one token and one data store: every order of their steps, crashes and absences, explored
//! exhaustively in small. What they decide by is the product's own plan and journal; the performer's order of effects (journal, token,
//! journal) is written down here once more.
//!
//! A second is a tick. At its beginning each server that runs looks at all rows, as the product does each ten seconds; then it does all
//! that is due, in any order with the others. It may die between any two effects and stay away for a while.
//!
//! The search is thirty lines of its own: the model checkers of the registry bring a web server and second versions of four crates.

mod servers;

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use crate::ca::journal::Authority;

use servers::{Action, Serial, Servers, World};

type Holds = fn(&World) -> bool;

/// Must hold in each state.
const INVARIANTS: [(&str, Holds); 5] = [
    (TRESPASS, |world| !world.has_trespassed),
    ("no signer's key is destroyed or replaced", |world| {
        let has_key = |signer: &Authority<Serial>| world.serial_of(&signer.in_token) == Some(signer.credential);
        (0..2).filter_map(|server| world.signer(server)).all(has_key)
    }),
    ("a signer is published, and everybody's agents know it but for a founding", |world| {
        (0..2).all(|server| is_known(world, server))
    }),
    ("a server that has done what is due signs", |world| {
        (0..2).all(|server| !world.servers[server].is_done || world.signer(server).is_some())
    }),
    ("no key is in two servers' places", |world| {
        let keys = |server: usize| -> BTreeSet<Serial> {
            let authorities = world.servers[server].journal.authorities();
            authorities.into_iter().map(|authority| authority.credential).collect()
        };
        keys(0).is_disjoint(&keys(1))
    }),
];
const TRESPASS: &str = "a server never destroys another's key";

fn is_known(world: &World, server: usize) -> bool {
    let Some(signer) = world.signer(server) else { return true };
    let journal = &world.servers[server].journal;
    let anchor = signer.root.unwrap_or(signer.key);
    let Some(anchor) = journal.anchors().into_iter().find(|authority| authority.key == anchor) else { return false };
    let is_first = journal.authorities().iter().all(|authority| authority.issued_counted >= anchor.issued_counted);
    let others = world.servers.iter().filter(|other| other.absent_since.is_none());
    is_first || others.into_iter().all(|other| other.bundle.contains(&anchor.credential))
}

/// How it came to a world, from its end.
#[derive(Clone, Debug, Default)]
struct Way(#[allow(dead_code, reason = "to be printed when an invariant breaks")] Option<Rc<(Way, Action)>>);

/// Looks at every world that can come, each once; returns how many there are, or the first invariant that breaks and how it came to
/// that. Worlds are told apart by 64 bits of a random hash: of a million, two are taken for one once in 36 million searches.
fn explore(servers: &Servers, mut look: impl FnMut(&World)) -> Result<usize, (&'static str, Way)> {
    let hasher = RandomState::new();
    let mut seen = HashSet::new();
    let mut next = vec![(servers.beginning(), Way::default())];
    while let Some((world, way)) = next.pop() {
        if !seen.insert(hasher.hash_one(&world)) {
            continue;
        }
        if let Some((broken, _)) = INVARIANTS.iter().find(|(_, holds)| !holds(&world)) {
            return Err((broken, way));
        }
        look(&world);
        for action in servers.actions(&world) {
            next.push((servers.after(&world, action), Way(Some(Rc::new((way.clone(), action))))));
        }
    }
    Ok(seen.len())
}

/// Everything that can happen holds; and it does happen that servers die and both rotate, and that keys are destroyed.
fn assert_holds(servers: &Servers) {
    let (mut both_rotate, mut one_is_destroyed) = (false, !servers.given.is_empty());
    let worlds = explore(servers, |world| {
        let died = world.servers.iter().filter(|server| server.has_died).count();
        both_rotate |= died == servers.mortals && world.servers.iter().all(|server| server.journal.next_key() > 3);
        one_is_destroyed |= usize::from(world.made) > world.token.len();
    });
    let worlds = worlds.unwrap_or_else(|(broken, way)| panic!("not so: {broken}, after {way:?}"));
    assert!(both_rotate && one_is_destroyed && worlds > 1_000, "{worlds} worlds");
}

//= FLT-S7
#[test]
fn servers_with_names_of_their_own_rotate_on_one_token_whoever_dies_when() {
    for is_rooted in [false, true] {
        assert_holds(&Servers { is_rooted, ..Servers::named(["one", "two"]) });
    }
}

#[test]
fn servers_rotate_the_keys_of_jwt_svids_as_they_rotate_cas_whoever_dies_when() {
    assert_holds(&Servers { is_jwt: true, ..Servers::named(["one", "two"]) });
}

#[test]
fn servers_that_take_keys_from_one_list_never_take_the_same_whoever_dies_when() {
    let given =
        vec!["k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "k10", "k11", "k12", "k13", "k14", "k15", "k16"];
    assert_holds(&Servers { given, ..Servers::named(["one", "two"]) });
}

/// What the names are for: the model finds it.
#[test]
fn servers_without_names_would_destroy_each_others_keys() {
    let (broken, _) = explore(&Servers::named(["", ""]), |_| ()).expect_err("they meet");
    assert_eq!(broken, TRESPASS);
}
