//! Whose signature makes somebody here, and through whom it was fetched.

use std::collections::HashSet;
use std::fmt;

use arc_swap::ArcSwap;
use ironroot_api::tls::{AuthorityMark, VerifiedSvid};

use super::NoRight;

/// The CAs that sign SVIDs for the servers of this data store.
///
/// X.509 cannot confine a CA to some SPIFFE IDs of a trust domain: whoever has a CA below this server's, or one above or beside it,
/// can sign a certificate with any of them, an administrator's too. All of them lead to the bundle, and workloads believe them. Here
/// they are nobody.
#[derive(Debug, Default)]
pub struct OwnAuthorities(ArcSwap<HashSet<AuthorityMark>>);

impl OwnAuthorities {
    /// Whether that is one of them.
    pub fn has(&self, authority: &AuthorityMark) -> bool {
        self.0.load().contains(authority)
    }

    /// From now on it is these.
    pub fn replace(&self, authorities: impl IntoIterator<Item = AuthorityMark>) {
        self.0.store(authorities.into_iter().collect::<HashSet<_>>().into());
    }

    /// `svid`, if one of them has signed it.
    pub fn judge<'s>(&self, svid: &'s VerifiedSvid) -> Option<OwnSvid<'s>> {
        self.has(&svid.signer()).then_some(OwnSvid(svid))
    }
}

/// What the certificate of an administrator or of a server below is held against.
#[derive(Clone, Copy)]
pub struct Provenance<'a> {
    /// Who must have signed it.
    pub own: &'a OwnAuthorities,
    /// Whether an SVID, by its decimal serial number, was fetched through an agent that is banned now.
    pub is_through_banned_agent: &'a (dyn Fn(&str) -> bool + Send + Sync),
}

impl fmt::Debug for Provenance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provenance").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Provenance<'_> {
    /// `svid`, if it gives rights.
    pub(crate) fn judge<'s>(&self, svid: &'s VerifiedSvid) -> Result<OwnSvid<'s>, NoRight> {
        let own = self.own.judge(svid).ok_or(NoRight::SignedElsewhere)?;
        //= FLT-S26 server faults: "what was fetched through it gives no rights at the server any more"
        match (self.is_through_banned_agent)(own.svid().serial()) {
            true => Err(NoRight::ThroughBannedAgent),
            false => Ok(own),
        }
    }
}

/// A certificate of a connection that a CA of this data store's servers has signed: only [`OwnAuthorities::judge`] makes one.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct OwnSvid<'s>(&'s VerifiedSvid);

impl<'s> OwnSvid<'s> {
    /// What it says.
    pub fn svid(self) -> &'s VerifiedSvid {
        self.0
    }
}
