//! Other trust domains: where each shows its bundle, how that place is proven, and how their bundles are stored.

mod bundle_row;

use ironroot_api::bundle::{Bundle, BundleError};
use ironroot_api::pb::types;
use ironroot_api::pb::types::federation_relationship::BundleEndpointProfile as WireProfile;
use ironroot_api::{SpiffeId, SpiffeIdError, TrustDomain};
use thiserror::Error;

pub use bundle_row::{decode_bundle, encode_bundle};
pub use ironroot_shell::web::{EndpointUrl, MAX_URL_BYTES, UrlError};

/// Why a federation relationship is refused. Where SPIRE has words for it, these are its words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum RelationshipError {
    #[error("failed to parse trust domain")]
    TrustDomain(#[source] SpiffeIdError),
    /// Where the bundle is.
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("failed to parse endpoint SPIFFE ID")]
    EndpointId(#[source] SpiffeIdError),
    /// Neither `https_web` nor `https_spiffe`.
    #[error("unsupported bundle endpoint profile type: <nil>")]
    NoProfile,
    /// The bundle that came with it.
    #[error("failed to parse bundle")]
    Bundle(#[from] BundleError),
    #[error("trust domain bundle ({0:?}) must match the trust domain of the federation relationship ({1:?})")]
    OtherBundle(TrustDomain, TrustDomain),
}

/// How the place is proven that a bundle is fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointProfile {
    /// By the authorities of the web, for the name in the URL.
    HttpsWeb,
    /// By an X509-SVID of exactly this ID, and the bundle that is held of its trust domain.
    HttpsSpiffe(SpiffeId),
}

impl EndpointProfile {
    /// As configuration and command line call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::HttpsWeb => "https_web",
            Self::HttpsSpiffe(_) => "https_spiffe",
        }
    }

    fn from_pb(profile: Option<&WireProfile>) -> Result<Self, RelationshipError> {
        match profile {
            Some(WireProfile::HttpsWeb(_)) => Ok(Self::HttpsWeb),
            Some(WireProfile::HttpsSpiffe(spiffe)) => {
                let id = SpiffeId::parse(&spiffe.endpoint_spiffe_id).map_err(RelationshipError::EndpointId)?;
                Ok(Self::HttpsSpiffe(id))
            }
            None => Err(RelationshipError::NoProfile),
        }
    }

    fn to_pb(&self) -> WireProfile {
        match self {
            Self::HttpsWeb => WireProfile::HttpsWeb(types::HttpsWebProfile {}),
            Self::HttpsSpiffe(id) => {
                WireProfile::HttpsSpiffe(types::HttpsspiffeProfile { endpoint_spiffe_id: id.to_string() })
            }
        }
    }
}

/// Where and how the bundle of a trust domain is fetched: the three things of the standard, and nothing is inferred.
//= FED-07 SPIFFE Federation 5.1: "clients MUST be configured with the following three parameters"
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederationRelationship {
    /// Whose bundle is there.
    pub trust_domain: TrustDomain,
    /// Where it is.
    pub url: EndpointUrl,
    /// How that place is proven.
    pub profile: EndpointProfile,
}

/// A relationship as an administrator asks for it, with the bundle that came along.
#[derive(Clone, Debug, PartialEq)]
pub struct AskedRelationship {
    /// Every part of it, also those that a mask leaves out.
    pub relationship: FederationRelationship,
    /// Replaces the one that is held.
    pub bundle: Option<Bundle>,
}

impl AskedRelationship {
    /// Checks every part, masked or not, as SPIRE does.
    pub fn from_pb(wire: &types::FederationRelationship) -> Result<Self, RelationshipError> {
        let trust_domain = TrustDomain::new(&wire.trust_domain).map_err(RelationshipError::TrustDomain)?;
        let url = EndpointUrl::parse(&wire.bundle_endpoint_url)?;
        let profile = EndpointProfile::from_pb(wire.bundle_endpoint_profile.as_ref())?;
        let bundle = wire.trust_domain_bundle.as_ref().map(Bundle::from_pb).transpose()?;
        if let Some(bundle) = bundle.as_ref().filter(|bundle| *bundle.trust_domain() != trust_domain) {
            return Err(RelationshipError::OtherBundle(bundle.trust_domain().clone(), trust_domain));
        }
        Ok(Self { relationship: FederationRelationship { trust_domain, url, profile }, bundle })
    }
}

impl FederationRelationship {
    /// This one with what `mask` names taken from `other` (no mask: all of it).
    pub fn updated(self, other: FederationRelationship, mask: Option<&types::FederationRelationshipMask>) -> Self {
        let Some(mask) = mask else { return Self { trust_domain: self.trust_domain, ..other } };
        Self {
            trust_domain: self.trust_domain,
            url: if mask.bundle_endpoint_url { other.url } else { self.url },
            profile: if mask.bundle_endpoint_profile { other.profile } else { self.profile },
        }
    }

    /// The wire form with what `mask` names (no mask: everything), and with the `bundle` that is held.
    pub fn to_pb(
        &self,
        bundle: Option<&Bundle>,
        mask: Option<&types::FederationRelationshipMask>,
    ) -> types::FederationRelationship {
        let wanted = |of: fn(&types::FederationRelationshipMask) -> bool| mask.is_none_or(of);
        types::FederationRelationship {
            trust_domain: self.trust_domain.as_str().to_owned(),
            bundle_endpoint_url: match wanted(|mask| mask.bundle_endpoint_url) {
                true => self.url.as_str().to_owned(),
                false => String::new(),
            },
            bundle_endpoint_profile: wanted(|mask| mask.bundle_endpoint_profile).then(|| self.profile.to_pb()),
            trust_domain_bundle: bundle.filter(|_| wanted(|mask| mask.trust_domain_bundle)).map(|b| b.to_pb().clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> types::FederationRelationship {
        types::FederationRelationship {
            trust_domain: "other".into(),
            bundle_endpoint_url: "https://other.test/bundle".into(),
            bundle_endpoint_profile: Some(WireProfile::HttpsWeb(types::HttpsWebProfile {})),
            trust_domain_bundle: None,
        }
    }

    fn spiffe(id: &str) -> Option<WireProfile> {
        Some(WireProfile::HttpsSpiffe(types::HttpsspiffeProfile { endpoint_spiffe_id: id.into() }))
    }

    #[test]
    fn each_mask_bit_moves_its_own_part_in_and_out() {
        let mut other = wire();
        other.bundle_endpoint_url = "https://elsewhere.test".into();
        other.bundle_endpoint_profile = spiffe("spiffe://other/spire/server");
        let [mine, other] = [&wire(), &other].map(|wire| AskedRelationship::from_pb(wire).expect("legal").relationship);
        let mask = |url, profile| types::FederationRelationshipMask {
            bundle_endpoint_url: url,
            bundle_endpoint_profile: profile,
            trust_domain_bundle: false,
        };
        assert_eq!(mine.clone().updated(other.clone(), None), other);
        let both = mine.clone().updated(other.clone(), Some(&mask(false, false)));
        assert_eq!(both, mine);
        let url = mine.clone().updated(other.clone(), Some(&mask(true, false)));
        assert_eq!((&url.url, &url.profile), (&other.url, &mine.profile));
        let profile = mine.clone().updated(other.clone(), Some(&mask(false, true)));
        assert_eq!((&profile.url, &profile.profile), (&mine.url, &other.profile));
        let out = other.to_pb(None, Some(&mask(true, false)));
        assert_eq!((out.bundle_endpoint_url.as_str(), out.bundle_endpoint_profile), ("https://elsewhere.test", None));
        let out = other.to_pb(None, Some(&mask(false, true)));
        assert_eq!((out.bundle_endpoint_url.as_str(), out.bundle_endpoint_profile.is_some()), ("", true));
    }

    //= FED-07 FED-08
    #[test]
    fn each_thing_that_is_wrong_with_a_relationship_is_refused_in_spires_words() {
        let refused = |change: &dyn Fn(&mut types::FederationRelationship)| {
            let mut wire = wire();
            change(&mut wire);
            let error = AskedRelationship::from_pb(&wire).expect_err("refused");
            ironroot_shell::describe(&error)
        };
        for (said, words) in [
            (refused(&|wire| wire.trust_domain = "T".into()), "failed to parse trust domain: "),
            (
                refused(&|wire| wire.bundle_endpoint_url = "http://other.test".into()),
                "bundle endpoint URL must use the https scheme",
            ),
            (refused(&|wire| wire.bundle_endpoint_profile = spiffe("x")), "failed to parse endpoint SPIFFE ID: "),
            (refused(&|wire| wire.bundle_endpoint_profile = None), "unsupported bundle endpoint profile type: <nil>"),
            (
                refused(&|wire| wire.trust_domain_bundle = Some(types::Bundle::default())),
                "failed to parse bundle: invalid trust domain: ",
            ),
            (
                refused(&|wire| {
                    wire.trust_domain_bundle = Some(types::Bundle { trust_domain: "x".into(), ..Default::default() });
                }),
                "trust domain bundle (\"x\") must match the trust domain of the federation relationship (\"other\")",
            ),
        ] {
            assert!(said.starts_with(words), "{said}");
        }
    }
}
