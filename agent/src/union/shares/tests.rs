use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::*;
use crate::agent_key::WorkloadKey;
use crate::server_answers::restored_workload_svid;
use crate::server_number::ServerNumber;

const NOW: i64 = 1_800_000_000;
/// Whole lifetime of the SVIDs here, seconds.
const LIFE: i64 = 4000;

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

/// A server: its number, and its authority.
struct Server {
    number: ServerNumber,
    issuer: Issuer<'static, KeyPair>,
    bundle: Arc<TrustBundle>,
}

fn servers() -> [Server; 2] {
    let numbers: Vec<_> = ServerNumber::up_to(2).collect();
    [numbers[0], numbers[1]].map(|number| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("signs");
        let bundle = Arc::new(TrustBundle::new(&td(), [(&root.der()[..], false)]).expect("an authority"));
        Server { number, issuer: Issuer::new(params, key), bundle }
    })
}

/// An entry's ID, its path, when it was created, and how long its SVID lasts from [`NOW`]; none: it has none.
type Entry = (&'static str, &'static str, i64, Option<i64>);

impl Server {
    fn terms(&self, (id, path, created_at, _): Entry) -> EntryTerms {
        EntryTerms { server: self.number, created_at, ..EntryTerms::example(id, path) }
    }

    fn identity(&self, entry: Entry, left: i64) -> Arc<Identity> {
        let (terms, key) = (self.terms(entry), KeyPair::generate().expect("a key"));
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(terms.spiffe_id.to_string().try_into().expect("ASCII"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = OffsetDateTime::from_unix_timestamp(NOW + left - LIFE).expect("in range");
        params.not_after = OffsetDateTime::from_unix_timestamp(NOW + left).expect("in range");
        let leaf = params.signed_by(&key, &self.issuer).expect("signs");
        let key = WorkloadKey::new(Zeroizing::new(key.serialize_der()));
        let svid = restored_workload_svid([&leaf.der()[..]], &terms.spiffe_id, key, None).expect("a pair");
        Arc::new(Identity::try_new(Arc::new(terms), Arc::new(svid)).expect("fits"))
    }

    fn share(&self, entries: &[Entry]) -> Share {
        let signed = entries.iter().filter_map(|entry| Some(self.identity(*entry, entry.3?))).collect();
        let unsigned = entries.iter().filter(|entry| entry.3.is_none()).map(|entry| Arc::new(self.terms(*entry)));
        let identities = Identities::try_new(td(), signed, self.bundle.clone()).expect("sound");
        Share { identities: Arc::new(identities.with_unsigned(unsigned.collect())), known: None, is_away: false }
    }

    fn silent(&self) -> Share {
        Share { identities: Arc::new(Identities::starting(td())), known: Some(self.bundle.clone()), is_away: false }
    }
}

fn all_at(shares: &[Share], now: i64) -> United {
    let bundles = shares.iter().filter_map(|share| share.identities.bundle().or(share.known.as_ref()));
    let bundle = TrustBundle::union(&bundles.cloned().collect::<Vec<_>>()).expect("sound");
    unite(&td(), shares, bundle, false, now).expect("sound")
}

/// The entry IDs of what is served to whoever has the entries' selectors, in their order.
fn served(united: &United, now: i64) -> Vec<String> {
    let theirs = EntryTerms::example("e", "/e").selectors;
    united.identities.for_selectors(&theirs, now).iter().map(|identity| identity.entry_id().to_owned()).collect()
}

#[test]
fn what_both_have_is_served_once_from_the_first_and_what_one_has_from_that_one() {
    let [north, south] = servers();
    let norths = north.share(&[("n-web", "/web", 5, Some(3000)), ("n-db", "/db", 6, Some(3000))]);
    let souths = south.share(&[("s-web", "/web", 9, Some(3900)), ("s-log", "/log", 7, Some(3900))]);
    let united = all_at(&[norths, souths], NOW);
    assert_eq!(served(&united, NOW), ["n-db", "n-web", "s-log"]);
    let web = EntryTerms::example("n-web", "/web");
    let standbys: Vec<_> = united.identities.standbys_of(&web).collect();
    assert_eq!(standbys.iter().map(|terms| terms.id.as_str()).collect::<Vec<_>>(), ["s-web"]);
    assert_eq!(united.identities.bundle().map(|bundle| bundle.authorities().len()), Some(2), "the authorities of both");
}

#[test]
fn before_an_svid_of_a_server_that_is_away_ends_that_of_another_takes_its_place_among_the_others() {
    let [north, south] = servers();
    let shares = [
        north.share(&[("n-web", "/web", 5, Some(1500)), ("o-db", "/db", 6, Some(3900))]),
        south.share(&[("s-web", "/web", 9, Some(3900))]),
    ];
    let united = all_at(&shares, NOW);
    assert_eq!(served(&united, NOW), ["n-web", "o-db"]);
    let switch = NOW + 1500 - LIFE / LAST_PART;
    assert_eq!(united.again_at, Some(switch), "in its last quarter it should have been replaced");
    let united = all_at(&shares, switch);
    assert_eq!(served(&united, switch), ["s-web", "o-db"], "in the place of the least entry ID of the two");
    let for_jwt = united.identities.entries_for(&EntryTerms::example("e", "/e").selectors);
    assert_eq!(for_jwt.iter().map(|terms| terms.id.as_str()).collect::<Vec<_>>(), ["s-web", "o-db"], "for JWT too");
    let late = NOW + 3500;
    assert_eq!(
        served(&all_at(&shares, late), late),
        ["s-web", "o-db"],
        "both near their end: the one that lasts longer"
    );
}

#[test]
fn an_entry_without_an_svid_is_asked_of_the_server_that_answers() {
    let [north, south] = servers();
    let entries = |id| [(id, "/web", 5, None)];
    let mut shares = [north.share(&entries("n")), south.share(&entries("s"))];
    let asked =
        |shares: &[Share]| all_at(shares, NOW).identities.unsigned().map(|terms| terms.id.clone()).collect::<Vec<_>>();
    assert_eq!(asked(&shares), ["n"]);
    shares[0].is_away = true;
    assert_eq!(asked(&shares), ["s"]);
    shares[0] = north.share(&[("n", "/web", 5, Some(-1))]);
    assert_eq!(asked(&shares), ["s"], "better than one that has ended");
}

#[test]
fn a_ban_by_one_server_withdraws_what_came_from_all() {
    let [north, south] = servers();
    let shares =
        [north.share(&[("n", "/a", 1, Some(3000))]), south.share(&[("s", "/b", 2, Some(3000)), ("t", "/c", 3, None)])];
    let united = unite(&td(), &shares, Some(north.bundle.clone()), true, NOW).expect("sound");
    assert_eq!((united.identities.entries().count(), united.identities.known_entries().count()), (0, 0));
    assert!(united.identities.bundle().is_some(), "it has started, and has nothing for anybody");
}

#[test]
fn whoever_has_no_identity_yet_waits_for_a_server_that_has_not_been_heard_unless_it_is_away() {
    let [north, south] = servers();
    assert!(all_at(&[north.silent(), south.silent()], NOW).identities.bundle().is_none(), "nobody has been heard");
    let mut shares = [north.share(&[("n", "/a", 1, Some(3000))]), south.silent()];
    let united = all_at(&shares, NOW);
    assert!(united.identities.is_partial());
    assert_eq!(served(&united, NOW), ["n"]);
    assert_eq!(united.identities.bundle().map(|bundle| bundle.authorities().len()), Some(2), "as the operator gave it");
    shares[1].is_away = true;
    assert!(!all_at(&shares, NOW).identities.is_partial());
}

#[test]
fn one_id_of_two_servers_entries_makes_them_not_the_same() {
    let [north, south] = servers();
    let shares = [north.share(&[("web", "/a", 1, Some(3000))]), south.share(&[("web", "/b", 2, Some(3000))])];
    let united = all_at(&shares, NOW);
    assert_eq!(served(&united, NOW), ["web", "web"]);
    let ends: Vec<_> = united.identities.ends().map(|(identity, _)| identity.terms().server.place()).collect();
    assert_eq!(ends, [0, 1]);
}
