//! SVIDs for which there is no entry: an administrator names them.

use ironroot_api::csr::{Csr, RequestedNames, Spki};
use ironroot_api::{SpiffeId, TrustDomain};
use thiserror::Error;

use super::jwt::{NotForWorkloads, workload_id};
use crate::facts::entry::{MAX_DNS_NAMES, is_dns_name};
use crate::rights::Administrator;

/// An SVID that may be signed, because an administrator asks for it. Its names come from the request, whose key has proven itself.
///
/// ```compile_fail
/// # fn mint(csr: &ironroot_api::csr::Csr, names: ironroot_api::csr::RequestedNames, td: &ironroot_api::TrustDomain) {
/// drop(ironroot_server::ca::SvidToMint::judge(csr, names, 0, td));
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SvidToMint {
    pub(super) id: SpiffeId,
    pub(super) dns_names: Vec<String>,
    pub(super) spki: Spki,
    /// 0 for the default.
    pub(super) ttl_seconds: i64,
}

/// Why no SVID is minted for a request. Source of the texts: SPIRE, pkg/server/api/svid/v1/service.go.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MintRefusal {
    /// It does not say for whom.
    #[error("CSR URI SAN is required")]
    NoUri,
    /// An SVID has one ID.
    #[error("only one URI SAN is expected")]
    SeveralUris,
    /// No ID that a workload can have.
    #[error("CSR URI SAN is invalid")]
    Id(#[from] NotForWorkloads),
    /// No host name.
    #[error("CSR DNS name is invalid: {0:?}")]
    DnsName(String),
    /// As many as an entry may have, and no more.
    #[error("CSR has more than {MAX_DNS_NAMES} DNS names")]
    TooManyDnsNames,
    /// Named twice: once by itself, once by a wildcard.
    #[error("CSR DNS name contains a wildcard that covers another non-wildcard name: {0:?}")]
    WildcardOverlap(String),
}

impl SvidToMint {
    /// What `_by` asks for with `csr`: one SPIFFE ID of a workload of `trust_domain` and any DNS names. `ttl_seconds` below 1: the
    /// default.
    pub fn judge(
        _by: &Administrator,
        csr: &Csr,
        names: RequestedNames,
        ttl_seconds: i32,
        trust_domain: &TrustDomain,
    ) -> Result<Self, MintRefusal> {
        let id = match &names.uris[..] {
            [] => return Err(MintRefusal::NoUri),
            [uri] => SpiffeId::parse(uri).map_err(NotForWorkloads::Id)?,
            _ => return Err(MintRefusal::SeveralUris),
        };
        let id = workload_id(id, trust_domain)?;
        check_dns_names(&names.dns_names)?;
        let ttl_seconds = i64::from(ttl_seconds).max(0);
        Ok(Self { id, dns_names: names.dns_names, spki: csr.spki().clone(), ttl_seconds })
    }

    /// The ID that it will have.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }
}

fn check_dns_names(names: &[String]) -> Result<(), MintRefusal> {
    if names.len() > MAX_DNS_NAMES {
        return Err(MintRefusal::TooManyDnsNames);
    }
    if let Some(name) = names.iter().find(|name| !is_dns_name(name)) {
        return Err(MintRefusal::DnsName(name.clone()));
    }
    let covers = |name: &str| name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
    let is_covered =
        |name: &&String| !name.starts_with('*') && covers(name).is_some_and(|other| names.contains(&other));
    names.iter().find(is_covered).map_or(Ok(()), |name| Err(MintRefusal::WildcardOverlap(name.clone())))
}

#[cfg(test)]
mod tests {
    use ironroot_api::unix_socket::PeerCredentials;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn judged(uris: &[&str], dns_names: &[&str], ttl_seconds: i32) -> Result<SvidToMint, MintRefusal> {
        let key = KeyPair::generate().expect("a key");
        let request = CertificateParams::default().serialize_request(&key).expect("signs");
        let csr = Csr::parse(request.der()).expect("its own key's");
        let by = Administrator::local(PeerCredentials { pid: 1, uid: 0, gid: 0 });
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let names = RequestedNames { uris: owned(uris), dns_names: owned(dns_names) };
        let trust_domain = TrustDomain::new("td").expect("legal");
        SvidToMint::judge(&by, &csr, names, ttl_seconds, &trust_domain)
    }

    #[test]
    fn a_workload_of_the_trust_domain_is_minted_with_its_names_and_no_lifetime_is_the_default() {
        let minted = judged(&["spiffe://td/web"], &["a.b", "*.c", "d.a.c"], 60).expect("may be");
        assert_eq!((minted.id().as_str(), minted.ttl_seconds), ("spiffe://td/web", 60));
        assert_eq!(minted.dns_names, ["a.b", "*.c", "d.a.c"]);
        assert_eq!(judged(&["spiffe://td/web"], &[], -5).expect("may be").ttl_seconds, 0);
    }

    #[test]
    fn each_refusal_has_its_words() {
        let many: Vec<String> = (0..=MAX_DNS_NAMES).map(|number| format!("a{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let web = &["spiffe://td/web"][..];
        for (uris, dns_names, words) in [
            (&[][..], &[][..], "CSR URI SAN is required"),
            (&["spiffe://td/a", "spiffe://td/b"], &[], "only one URI SAN is expected"),
            (&["https://td/a"], &[], "CSR URI SAN is invalid"),
            (&["spiffe://other/a"], &[], "CSR URI SAN is invalid"),
            (&["spiffe://td"], &[], "CSR URI SAN is invalid"),
            (&["spiffe://td/spire/server"], &[], "CSR URI SAN is invalid"),
            (web, &["a b"], "CSR DNS name is invalid: \"a b\""),
            (web, &["*.b", "a.b"], "covers another non-wildcard name: \"a.b\""),
            (web, &many, "more than 256 DNS names"),
        ] {
            let refusal = judged(uris, dns_names, 0).expect_err(words).to_string();
            assert!(refusal.contains(words), "{refusal}");
        }
        let reserved = judged(&["spiffe://td/spire"], &[], 0);
        assert!(matches!(reserved, Err(MintRefusal::Id(NotForWorkloads::Reserved { .. }))));
    }
}
