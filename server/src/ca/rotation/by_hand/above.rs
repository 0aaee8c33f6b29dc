//! What an operator may say of a root of the authority above: it is in other hands, or nobody may believe it any more.

use super::{Action, MayActivate, MayPrepare, OrderRefusal};
use crate::ca::journal::{Authority, Journal, SlotName};
use crate::ca::purpose::Purpose;
use crate::clock::Moment;
use crate::facts::tier::{TierAuthorities, TierAuthority, TierOrigin};

/// A root of the authority above of which that may be said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct MayDisown {
    root: TierAuthority,
    action: Action,
}

impl MayDisown {
    /// The root whose subject key ID is `id`, in hexadecimal digits, if it signs neither the CA that signs now nor the next, and has signed
    /// one of before.
    pub fn judge(journal: &Journal, tiers: &TierAuthorities, id: &str, action: Action) -> Result<Self, OrderRefusal> {
        let id = id.to_ascii_lowercase();
        if id.is_empty() {
            return Err(OrderRefusal::NoSubject(action));
        }
        let cas = journal.slots(Purpose::X509Ca);
        let hangs_on_it = |ca: &Authority| ca.root_above().is_some_and(|root| root == id);
        let signed = |slot: Option<(SlotName, &Authority)>| slot.is_some_and(|(_, ca)| hangs_on_it(ca));
        if signed(cas.active()) {
            return Err(OrderRefusal::SignsActive(action));
        }
        if signed(cas.prepared()) {
            return Err(OrderRefusal::SignsPrepared(action));
        }
        let has_signed = cas.authorities().into_iter().any(hangs_on_it);
        let root = tiers.authorities.iter().find(|root| has_signed && is_root(root, &id));
        let root = root.ok_or(OrderRefusal::SignedNoOld(action))?.clone();
        match (action, root.tainted) {
            (Action::Taint, true) => Err(OrderRefusal::IsTainted(Purpose::Root)),
            (Action::Revoke, false) => Err(OrderRefusal::IsNotTainted(Purpose::Root)),
            _ => Ok(Self { root, action }),
        }
    }

    /// Which one, and what is said of it.
    pub fn root(self) -> (TierAuthority, Action) {
        (self.root, self.action)
    }
}

fn is_root(authority: &TierAuthority, id: &str) -> bool {
    authority.origin == TierOrigin::Above && authority.subject_key_id().is_some_and(|key_id| key_id == id)
}

/// How the CA leaves roots that the authority above has called tainted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Leaving {
    /// No CA hangs on them, but those of before.
    Done,
    /// The next CA hangs on one: another takes its place, and is activated in its time.
    Prepare(MayPrepare),
    /// The CA that signs hangs on one, and the next does not.
    Activate(MayActivate),
    /// Both do, or there is no next one: another is made, and signs at once.
    Replace(MayPrepare),
}

impl Leaving {
    /// `roots`: their subject key IDs, in lower-case hexadecimal digits. Source: SPIRE `processTaintedUpstreamAuthorities`, which leaves a
    /// prepared CA as it is.
    pub fn judge(journal: &Journal, roots: &[String], moment: Moment) -> Result<Self, OrderRefusal> {
        let cas = journal.slots(Purpose::X509Ca);
        let hangs = |found: Option<(SlotName, &Authority)>| found.is_some_and(|(_, ca)| ca.hangs_on(roots));
        let next = cas.prepared().filter(|(_, next)| !next.hangs_on(roots));
        match (hangs(cas.active()), next) {
            (true, Some((_, next))) => MayActivate::judge(journal, Purpose::X509Ca, Some(next.key)).map(Self::Activate),
            (true, None) => MayPrepare::judge(journal, Purpose::X509Ca, moment).map(Self::Replace),
            (false, _) if hangs(cas.prepared()) => {
                MayPrepare::judge(journal, Purpose::X509Ca, moment).map(Self::Prepare)
            }
            (false, _) => Ok(Self::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::TrustDomain;
    use ironroot_api::certificate::Certificate;
    use ironroot_hsm::KeyName;
    use ironroot_text::hex::hex;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

    use super::*;
    use crate::ca::LocalAuthorities;
    use crate::ca::journal::{KeyRecord, Place, UpstreamChain, Verdict};
    use crate::ca::server_name::ServerName;
    use crate::clock::Trust;
    use crate::facts::tier::TierCredential;

    /// A root, and a CA that it has signed.
    fn pair(name: &str) -> (Certificate, Authority) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.use_authority_key_identifier_extension = true;
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = Certificate::parse(params.self_signed(&root_key).unwrap().der()).unwrap();
        let mut ca = params.clone();
        ca.subject_alt_names = vec![SanType::URI("spiffe://example.org".try_into().unwrap())];
        let ca = ca.signed_by(&key, &Issuer::new(params, root_key)).unwrap();
        let ca = Certificate::parse(ca.der()).unwrap();
        let in_token = KeyRecord::made(KeyName::labelled(name).unwrap());
        let (issued_at, issued_counted, not_after) = (1_800_000_000, 0, ca.not_after_unix());
        let (credential, key, root_number) = (ca.into(), 0, None);
        let (upstream, verdict) = (Some(UpstreamChain::default()), Verdict::None);
        let authority = Authority {
            credential,
            issued_at,
            not_after,
            issued_counted,
            key,
            in_token,
            root: root_number,
            upstream,
            verdict,
        };
        (root, authority)
    }

    fn told(root: &Certificate, tainted: bool) -> TierAuthority {
        let credential = TierCredential::Certificate(root.der().to_vec());
        TierAuthority { origin: TierOrigin::Above, credential, expires_at: 9, tainted }
    }

    fn id(root: &Certificate) -> String {
        hex(&root.subject_key_id().unwrap()).to_uppercase()
    }

    #[test]
    fn only_a_root_that_signed_before_and_signs_nothing_now_is_tainted_and_then_revoked() {
        let [(first, old), (second, active), (third, prepared), (stranger, _)] = ["1", "2", "3", "4"].map(pair);
        let [a, b] = [SlotName::A, SlotName::B].map(Place::ca);
        let journal = Journal::new(&TrustDomain::new("example.org").unwrap(), &ServerName::default());
        let journal = journal.prepare(a, old).activate(a);
        let journal = journal.prepare(b, active).activate(b).prepare(a, prepared);
        let roots = |tainted| {
            let authorities =
                vec![told(&first, tainted), told(&second, false), told(&third, false), told(&stranger, false)];
            TierAuthorities { authorities, revision: 0 }
        };
        let judge = |root: &str, tainted, action| MayDisown::judge(&journal, &roots(tainted), root, action);
        assert_eq!(judge("", false, Action::Taint), Err(OrderRefusal::NoSubject(Action::Taint)));
        assert_eq!(judge(&id(&second), false, Action::Taint), Err(OrderRefusal::SignsActive(Action::Taint)));
        assert_eq!(judge(&id(&third), false, Action::Revoke), Err(OrderRefusal::SignsPrepared(Action::Revoke)));
        assert_eq!(judge(&id(&stranger), false, Action::Taint), Err(OrderRefusal::SignedNoOld(Action::Taint)));
        assert_eq!(judge(&id(&first), false, Action::Revoke), Err(OrderRefusal::IsNotTainted(Purpose::Root)));
        assert_eq!(judge(&id(&first), true, Action::Taint), Err(OrderRefusal::IsTainted(Purpose::Root)));
        let tainted = judge(&id(&first), false, Action::Taint).unwrap().root();
        assert_eq!(tainted, (told(&first, false), Action::Taint));
        assert_eq!(judge(&id(&first), true, Action::Revoke).unwrap().root(), (told(&first, true), Action::Revoke));
    }

    #[test]
    fn a_root_that_is_only_published_is_not_one_of_before_and_nobody_says_that_it_is_the_next() {
        let [(first, old), (second, active), (third, prepared), (published, _)] = ["1", "2", "3", "4"].map(pair);
        let [a, b] = [SlotName::A, SlotName::B].map(Place::ca);
        let founded = Journal::new(&TrustDomain::new("example.org").unwrap(), &ServerName::default());
        let founded = founded.prepare(a, old).activate(a);
        let shown = |journal: &Journal, roots: &[&Certificate]| {
            let authorities = roots.iter().map(|root| told(root, false)).collect();
            let shown = LocalAuthorities::above(journal, &TierAuthorities { authorities, revision: 0 });
            let published: Vec<_> = shown.published.into_iter().map(|state| state.id).collect();
            ([shown.active, shown.prepared, shown.old].map(|state| state.map(|state| state.id)), published)
        };
        let (one, published) = (|root| Some(id(root).to_lowercase()), [&published]);
        let roots = [published[0], &first, &second, &third];
        assert_eq!(shown(&founded, &roots[..2]), ([one(&first), None, None], lower(&published)));
        let replaced = founded.prepare(b, active).activate(b);
        assert_eq!(shown(&replaced, &roots[..3]), ([one(&second), None, one(&first)], lower(&published)));
        let ahead = replaced.prepare(a, prepared);
        assert_eq!(
            shown(&ahead, &[&roots[..1], &roots[2..]].concat()),
            ([one(&second), one(&third), None], lower(&published))
        );
    }

    fn lower(roots: &[&Certificate]) -> Vec<String> {
        roots.iter().map(|root| id(root).to_lowercase()).collect()
    }

    #[test]
    fn a_ca_leaves_a_tainted_root_by_the_shortest_way_and_no_other_moves() {
        let [(first, old), (second, active), (third, prepared)] = ["1", "2", "3"].map(pair);
        let [a, b] = [SlotName::A, SlotName::B].map(Place::ca);
        let journal = Journal::new(&TrustDomain::new("example.org").unwrap(), &ServerName::default());
        let journal = journal.prepare(a, old).activate(a).prepare(b, Authority { key: 1, ..active }).activate(b);
        let moment = Moment { now_unix: 1_800_000_100, counted: 100, trust: Trust::Agreed };
        let leaving =
            |journal: &Journal, roots: &[&Certificate]| Leaving::judge(journal, &lower(roots), moment).unwrap();
        let another = Leaving::Replace(MayPrepare { place: a });
        assert_eq!((leaving(&journal, &[&first]), leaving(&journal, &[&second])), (Leaving::Done, another));
        let journal = journal.prepare(a, Authority { key: 2, ..prepared });
        assert_eq!(leaving(&journal, &[&second]), Leaving::Activate(MayActivate { place: a }));
        assert_eq!(leaving(&journal, &[&third]), Leaving::Prepare(MayPrepare { place: a }));
        assert_eq!(leaving(&journal, &[&third, &second]), another, "the next one is no better");
        let incident = Moment { trust: Trust::Incident, ..moment };
        let refused = Leaving::judge(&journal, &lower(&[&third]), incident);
        assert_eq!(refused, Err(OrderRefusal::Clock(Purpose::X509Ca)));
    }

    #[test]
    fn a_ca_below_a_root_that_was_left_signs_nothing_more() {
        let [(first, old), (_, active)] = ["1", "2"].map(pair);
        let [a, b] = [SlotName::A, SlotName::B].map(Place::ca);
        let journal = Journal::new(&TrustDomain::new("example.org").unwrap(), &ServerName::default());
        let journal = journal.prepare(a, old).activate(a).prepare(b, Authority { key: 1, ..active }).activate(b);
        let signers = |journal: &Journal| journal.slots(Purpose::X509Ca).signers().len();
        assert_eq!((signers(&journal), signers(&journal.clone().disown(&lower(&[&first])))), (2, 1));
    }
}
