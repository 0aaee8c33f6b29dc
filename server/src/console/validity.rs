//! Roots, CAs and keys as a tree, each with the time it is good for.

use ironroot_api::certificate::Certificate;
use ironroot_api::pb::localauthority::{AuthorityState, GetX509AuthorityStateResponse};
use ironroot_api::pb::server_status::GetStatusResponse;
use ironroot_api::pb::server_status::get_status_response::Authority;
use ironroot_api::pb::types::{Bundle, X509Certificate};
use ironroot_text::hex::hex;

/// Something that is good for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    pub id: String,
    /// What it does: signs, comes next, signed before, or is in the bundle.
    pub role: &'static str,
    /// UNIX seconds; none where it is not known.
    pub since: Option<i64>,
    pub until: i64,
    pub tainted: bool,
    /// CAs below a root.
    pub below: Vec<Validity>,
}

impl Validity {
    /// How much of its time has passed at `now`, in hundredths.
    pub fn passed(&self, now: i64) -> Option<i64> {
        let whole = self.until.saturating_sub(self.since?).max(1);
        Some((now.saturating_sub(self.since?).saturating_mul(100) / whole).clamp(0, 100))
    }
}

/// The roots of the bundle with this server's CAs below them; what hangs on no root of the bundle stands beside them.
pub fn x509(bundle: &Bundle, local: &GetX509AuthorityStateResponse, status: &GetStatusResponse) -> Vec<Validity> {
    let states = [(&local.active, "signs"), (&local.prepared, "comes next"), (&local.old, "signed before")];
    let known = status.authorities.iter().find(|authority| authority.purpose == "x509_ca");
    let mut cas: Vec<(String, Validity)> = states
        .into_iter()
        .filter_map(|(state, role)| state.as_ref().map(|state| (state, role)))
        .map(|(state, role)| (state.upstream_authority_subject_key_id.clone(), ca(state, role, known)))
        .collect();
    let mut roots: Vec<Validity> = bundle.x509_authorities.iter().filter_map(root).collect();
    for root in &mut roots {
        if let Some(at) = cas.iter().position(|(_, ca)| ca.id == root.id) {
            root.role = cas.remove(at).1.role;
        }
        let is_below = |(upstream, _): &mut (String, Validity)| *upstream == root.id;
        root.below = cas.extract_if(.., is_below).map(|(_, ca)| ca).collect();
    }
    roots.extend(cas.into_iter().map(|(_, ca)| ca));
    roots
}

/// The keys of JWT-SVIDs in the bundle.
pub fn jwt(bundle: &Bundle, status: &GetStatusResponse) -> Vec<Validity> {
    let known = status.authorities.iter().find(|authority| authority.purpose == "jwt_key");
    let role = |id: &str| match known {
        Some(key) if key.active_id == id => "signs",
        Some(key) if key.prepared_id == id => "comes next",
        _ => "is in the bundle",
    };
    let key = |key: &ironroot_api::pb::types::JwtKey| Validity {
        id: key.key_id.clone(),
        role: role(&key.key_id),
        since: None,
        until: key.expires_at,
        tainted: key.tainted,
        below: Vec::new(),
    };
    bundle.jwt_authorities.iter().map(key).collect()
}

fn ca(state: &AuthorityState, role: &'static str, known: Option<&Authority>) -> Validity {
    let since = known.and_then(|known| match state.authority_id {
        ref id if *id == known.active_id => Some(known.active_since),
        ref id if *id == known.prepared_id => Some(known.prepared_since),
        _ => None,
    });
    let since = since.filter(|since| *since != 0);
    Validity { id: state.authority_id.clone(), role, since, until: state.expires_at, tainted: false, below: Vec::new() }
}

/// None for what is no certificate: a server gives none.
fn root(authority: &X509Certificate) -> Option<Validity> {
    let certificate = Certificate::parse(&authority.asn1).ok()?;
    Some(Validity {
        id: certificate.subject_key_id().map(|id| hex(&id)).unwrap_or_default(),
        role: "is in the bundle",
        since: Some(certificate.not_before_unix()),
        until: certificate.not_after_unix(),
        tainted: authority.tainted,
        below: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    /// A root of the year 2026, and its ID.
    fn bundle() -> (Bundle, String) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
        let der = params.self_signed(&KeyPair::generate().expect("a key")).expect("signed").der().to_vec();
        let id = Certificate::parse(&der).expect("parses").subject_key_id().map(|id| hex(&id)).expect("an ID");
        let authorities = vec![X509Certificate { asn1: der.into(), tainted: true }];
        (Bundle { x509_authorities: authorities, ..Bundle::default() }, id)
    }

    fn state(id: &str, upstream: &str) -> Option<AuthorityState> {
        let upstream_authority_subject_key_id = upstream.to_owned();
        Some(AuthorityState { authority_id: id.into(), expires_at: 9, upstream_authority_subject_key_id })
    }

    #[test]
    fn a_ca_stands_below_its_root_and_one_that_is_its_own_root_is_shown_once() {
        let (bundle, id) = bundle();
        let local =
            GetX509AuthorityStateResponse { active: state("aa", &id), prepared: state("bb", "gone"), old: None };
        let known =
            Authority { purpose: "x509_ca".into(), active_id: "aa".into(), active_since: 5, ..Default::default() };
        let status = GetStatusResponse { authorities: vec![known], ..GetStatusResponse::default() };
        let tree = x509(&bundle, &local, &status);
        assert_eq!((tree.len(), &tree[0].id, tree[0].tainted, tree[1].id.as_str()), (2, &id, true, "bb"));
        assert_eq!(
            (tree[0].below[0].id.as_str(), tree[0].below[0].since, tree[0].below[0].role),
            ("aa", Some(5), "signs")
        );
        let own = GetX509AuthorityStateResponse { active: state(&id, ""), ..Default::default() };
        let tree = x509(&bundle, &own, &GetStatusResponse::default());
        assert_eq!((tree.len(), tree[0].role, tree[0].below.len()), (1, "signs", 0));
    }

    #[test]
    fn the_time_that_has_passed_is_told_in_hundredths_and_never_beyond_the_whole() {
        let (bundle, _) = bundle();
        let root = &x509(&bundle, &GetX509AuthorityStateResponse::default(), &GetStatusResponse::default())[0];
        let (since, until) = (root.since.expect("told"), root.until);
        assert_eq!(root.passed(since + (until - since) / 2), Some(50));
        assert_eq!((root.passed(since - 9), root.passed(until + 9)), (Some(0), Some(100)));
        assert_eq!(Validity { since: None, ..root.clone() }.passed(until), None);
    }

    #[test]
    fn keys_of_jwt_svids_say_which_signs() {
        let key = |id: &str| ironroot_api::pb::types::JwtKey { key_id: id.into(), ..Default::default() };
        let bundle = Bundle { jwt_authorities: vec![key("a"), key("b"), key("c")], ..Bundle::default() };
        let known = Authority {
            purpose: "jwt_key".into(),
            active_id: "b".into(),
            prepared_id: "c".into(),
            ..Authority::default()
        };
        let status = GetStatusResponse { authorities: vec![known], ..GetStatusResponse::default() };
        assert_eq!(
            jwt(&bundle, &status).iter().map(|key| key.role).collect::<Vec<_>>(),
            ["is in the bundle", "signs", "comes next"]
        );
    }
}
