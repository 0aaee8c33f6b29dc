//! The paths from a certificate to authorities: webpki's, and what webpki does not look at.
//!
//! webpki ignores the keyUsage of the certificates between, and all of an anchor but its name, key and name constraints: with it
//! alone an authority that has ended would vouch for ever. Go's crypto/x509, and so SPIRE, refuses both.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use der::Decode;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, ExtendedKeyUsageValidator, VerifiedPath};
use x509_cert::Certificate;

use super::{Authorities, Facts, Fingerprint, fingerprint, may_sign_certificates, seconds};

impl Authorities {
    /// Every certificate above `leaf` on any path to one of these, at `now_unix` (UNIX seconds); at least one. `intermediates`:
    /// in any order; the caller bounds their number and size. webpki bounds the paths by the signatures that it verifies, 100.
    pub(crate) fn above(
        &self,
        leaf: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        now_unix: i64,
        usage: impl ExtendedKeyUsageValidator,
    ) -> Result<BTreeSet<Fingerprint>, Error> {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds(now_unix)));
        let above = RefCell::new(BTreeSet::new());
        let judge = |path: &VerifiedPath<'_>| {
            above.borrow_mut().extend(self.of_path(path, now)?);
            // A refusal has webpki go on to the next path.
            Err(Error::UnknownIssuer)
        };
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let refused =
            leaf.verify_for_usage(algorithms, &self.anchors, intermediates, now, usage, None, Some(&judge)).map(drop);
        let above = above.into_inner();
        match refused {
            Err(error) if above.is_empty() => Err(error),
            _ => Ok(above),
        }
    }

    /// The certificates above the leaf of one path that webpki has verified.
    fn of_path(&self, path: &VerifiedPath<'_>, now: UnixTime) -> Result<Vec<Fingerprint>, Error> {
        let mut above = Vec::new();
        for between in path.intermediate_certificates() {
            let der = between.der();
            let certificate = Certificate::from_der(&der).map_err(|_| Error::BadDer)?;
            if !may_sign_certificates(&certificate).map_err(|_| Error::ExtensionValueInvalid)? {
                return Err(Error::EndEntityUsedAsCa);
            }
            above.push(fingerprint(&der));
        }
        above.extend(self.vouching(path.anchor(), above.len(), now)?);
        Ok(above)
    }

    /// The certificates that are `anchor` (an authority that was renewed has several) and may vouch now, for a path with so many
    /// authorities between.
    pub(crate) fn vouching(
        &self,
        anchor: &TrustAnchor<'_>,
        between: usize,
        now: UnixTime,
    ) -> Result<Vec<Fingerprint>, Error> {
        let same = self.anchors.iter().zip(&self.facts).filter(|(known, _)| *known == anchor);
        let verdicts: Vec<_> = same.map(|(_, facts)| facts.vouches(between, now)).collect();
        let vouching: Vec<Fingerprint> = verdicts.iter().flatten().copied().collect();
        match verdicts.into_iter().find_map(Result::err) {
            Some(refusal) if vouching.is_empty() => Err(refusal),
            _ => Ok(vouching),
        }
    }
}

impl Facts {
    fn vouches(&self, between: usize, time: UnixTime) -> Result<Fingerprint, Error> {
        let moment = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let (not_before, not_after) = (moment(self.not_before()), moment(self.not_after()));
        if time < not_before {
            return Err(Error::CertNotValidYet { time, not_before });
        }
        if time > not_after {
            return Err(Error::CertExpired { time, not_after });
        }
        if self.longest_path.is_some_and(|longest| between > usize::from(longest)) {
            return Err(Error::PathLenConstraintViolated);
        }
        Ok(self.fingerprint)
    }
}
