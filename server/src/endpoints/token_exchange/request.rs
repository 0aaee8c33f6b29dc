//! What somebody wants for a token: the parameters of a form, each once. Source: RFC 8693 §2.1; those that it does not know are passed over
//! (RFC 6749 §3.2), those that it knows and this server does not are refused.

use std::borrow::Cow;

use der::Document;
use ironroot_api::csr::{Csr, CsrError};
use ironroot_api::jwt::{AudienceRefusal, Audiences};
use ironroot_api::{SpiffeId, SpiffeIdError};
use thiserror::Error;
use zeroize::Zeroizing;

use super::MAX_FORM_BYTES;
use crate::ca::{Audience, AudienceError};

/// Most parameters looked at.
const MAX_PARAMETERS: usize = 300;
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// Source: RFC 8693 §3.
pub(super) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// Ours: a chain in PEM, for the key of a certificate request.
pub(super) const X509_SVID: &str = "urn:ironroot:token-type:x509-svid";
const CSR_LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// Why a form is no request for an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum FormRefusal {
    #[error("the form is longer than {MAX_FORM_BYTES} bytes")]
    TooLong,
    #[error("the form breaks off")]
    BrokenOff,
    #[error("the form has more than {MAX_PARAMETERS} parameters")]
    TooManyParameters,
    //= EXC-05 RFC 6749 3.2: "Request and response parameters MUST NOT be included more than once."
    #[error("parameter {0} stands twice")]
    Twice(&'static str),
    #[error("parameter {0} is missing")]
    Missing(&'static str),
    #[error("grant_type must be {GRANT_TYPE}")]
    GrantType,
    #[error("subject_token_type must be {JWT} or {ID_TOKEN}")]
    SubjectTokenType,
    #[error("requested_token_type must be {JWT} or {X509_SVID}")]
    RequestedTokenType,
    /// Nobody acts for somebody else here.
    #[error("parameter actor_token is not supported")]
    Actor,
    /// Whom the SVID is for is said by name.
    #[error("parameter resource is not supported: name whom the token is for as audience")]
    Resource,
    #[error("scope must be one SPIFFE ID, or not there: {0}")]
    Scope(SpiffeIdError),
    #[error("{0}")]
    Audience(AudienceRefusal),
    #[error("csr must be a PEM certificate request")]
    CsrForm,
    #[error("csr cannot be used: {0}")]
    Csr(CsrError),
    #[error("JWT-SVIDs are disabled at this server")]
    JwtDisabled,
}

/// A request.
pub(super) struct ExchangeRequest {
    /// What is to prove itself.
    pub token: Zeroizing<String>,
    /// What for.
    pub wanted: Wanted,
    /// Which identity, if the token may have several.
    pub identity: Option<SpiffeId>,
}

/// What is wanted for a token.
pub(super) enum Wanted {
    /// A JWT-SVID for these.
    Jwt(Audience),
    /// An X.509-SVID for the key that has signed this.
    X509(UnverifiedCsr),
}

/// What is wanted, of whoever has the right to it: a certificate request was verified.
pub(super) enum VerifiedWanted {
    Jwt(Audience),
    X509(Csr),
}

/// A certificate request that nobody has looked into.
pub(super) struct UnverifiedCsr(Document);

impl Wanted {
    /// For whoever has the right to what is asked for: a stranger's request costs no verification.
    pub fn verified(self) -> Result<VerifiedWanted, FormRefusal> {
        Ok(match self {
            Self::Jwt(audience) => VerifiedWanted::Jwt(audience),
            Self::X509(csr) => VerifiedWanted::X509(csr.verify()?),
        })
    }
}

impl UnverifiedCsr {
    fn from_pem(text: &str) -> Result<Self, FormRefusal> {
        let (label, der) = Document::from_pem(text).map_err(|_| FormRefusal::CsrForm)?;
        if CSR_LABELS.contains(&label) { Ok(Self(der)) } else { Err(FormRefusal::CsrForm) }
    }

    /// The request, signed by its own key.
    fn verify(&self) -> Result<Csr, FormRefusal> {
        Csr::parse(self.0.as_bytes()).map_err(FormRefusal::Csr)
    }
}

/// A form taken apart.
struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl ExchangeRequest {
    /// Reads a form.
    pub fn parse(form: &[u8]) -> Result<Self, FormRefusal> {
        let form = Parameters::of(form)?;
        if form.needed("grant_type")? != GRANT_TYPE {
            return Err(FormRefusal::GrantType);
        }
        let token = Zeroizing::new(form.needed("subject_token")?.to_owned());
        if ![JWT, ID_TOKEN].contains(&form.needed("subject_token_type")?) {
            return Err(FormRefusal::SubjectTokenType);
        }
        if form.one("actor_token")?.is_some() {
            return Err(FormRefusal::Actor);
        }
        if form.all("resource").next().is_some() {
            return Err(FormRefusal::Resource);
        }
        let identity = form.one("scope")?.map(SpiffeId::parse).transpose().map_err(FormRefusal::Scope)?;
        let wanted = match form.one("requested_token_type")? {
            None | Some(JWT) => Wanted::Jwt(form.audience()?),
            Some(X509_SVID) => Wanted::X509(UnverifiedCsr::from_pem(form.needed("csr")?)?),
            Some(_) => return Err(FormRefusal::RequestedTokenType),
        };
        Ok(Self { token, wanted, identity })
    }
}

impl<'a> Parameters<'a> {
    fn of(form: &'a [u8]) -> Result<Self, FormRefusal> {
        let all: Vec<_> = form_urlencoded::parse(form).take(MAX_PARAMETERS + 1).collect();
        if all.len() > MAX_PARAMETERS { Err(FormRefusal::TooManyParameters) } else { Ok(Self(all)) }
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        // A parameter without a value is as good as none. Source: RFC 6749 §3.2.
        let named = self.0.iter().filter(move |(known, value)| known == name && !value.is_empty());
        named.map(|(_, value)| &**value)
    }

    fn one(&self, name: &'static str) -> Result<Option<&str>, FormRefusal> {
        let mut all = self.all(name);
        let first = all.next();
        if all.next().is_some() { Err(FormRefusal::Twice(name)) } else { Ok(first) }
    }

    fn needed(&self, name: &'static str) -> Result<&str, FormRefusal> {
        self.one(name)?.ok_or(FormRefusal::Missing(name))
    }

    /// It may stand several times. Source: RFC 8693 §2.1.
    fn audience(&self) -> Result<Audience, FormRefusal> {
        let asked: Vec<String> = self.all("audience").map(str::to_owned).collect();
        Audiences::try_new(asked.clone()).map_err(FormRefusal::Audience)?;
        Audience::parse(asked).map_err(|error| {
            FormRefusal::Audience(match error {
                AudienceError::None => AudienceRefusal::None,
                AudienceError::Refused(refusal) => refusal,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn form(parameters: &[(&str, &str)]) -> Vec<u8> {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish().into_bytes()
    }

    const GOOD: [(&str, &str); 4] =
        [("grant_type", GRANT_TYPE), ("subject_token", "a.b.c"), ("subject_token_type", JWT), ("audience", "db")];

    fn with(more: &[(&str, &str)]) -> Result<ExchangeRequest, FormRefusal> {
        ExchangeRequest::parse(&form(&[&GOOD, more].concat()))
    }

    /// One of the good ones replaced, or left out.
    fn without(name: &str, instead: Option<&str>) -> Option<FormRefusal> {
        let kept = GOOD.iter().filter_map(|(known, value)| match (known == &name, instead) {
            (true, None) => None,
            (true, Some(instead)) => Some((*known, instead)),
            (false, _) => Some((*known, *value)),
        });
        ExchangeRequest::parse(&form(&kept.collect::<Vec<_>>())).err()
    }

    fn request() -> String {
        let key = KeyPair::generate().expect("a key");
        CertificateParams::default().serialize_request(&key).expect("signed").pem().expect("PEM")
    }

    #[test]
    fn a_token_and_whom_it_is_for_are_all_that_is_needed_and_what_nobody_knows_is_passed_over() {
        let read = with(&[("audience", "api"), ("colour", "red"), ("colour", "blue"), ("scope", "")]).expect("good");
        let Wanted::Jwt(audience) = read.wanted else { panic!("not a JWT") };
        assert_eq!(
            (audience.recipients(), &**read.token, read.identity),
            (&["db".into(), "api".into()][..], "a.b.c", None)
        );
        assert_eq!(without("subject_token_type", Some(ID_TOKEN)), None);
        let read = with(&[("scope", "spiffe://td/deploy")]).expect("good");
        assert_eq!(read.identity.expect("named").as_str(), "spiffe://td/deploy");
    }

    #[test]
    fn a_certificate_request_gets_an_x509_svid() {
        let (csr, kind) = (request(), ("requested_token_type", X509_SVID));
        let asked = |csr: &str| match with(&[kind, ("csr", csr)]).expect("a form").wanted {
            Wanted::X509(csr) => csr,
            Wanted::Jwt(_) => panic!("no X.509-SVID"),
        };
        assert!(asked(&csr).verify().is_ok());
        assert!(matches!(Wanted::X509(asked(&csr)).verified(), Ok(VerifiedWanted::X509(_))));
        let certificate = csr.replace("CERTIFICATE REQUEST", "CERTIFICATE");
        for bad in ["x", &certificate, &csr[..100]] {
            assert_eq!(with(&[kind, ("csr", bad)]).err(), Some(FormRefusal::CsrForm), "{bad}");
        }
        assert_eq!(with(&[kind]).err(), Some(FormRefusal::Missing("csr")));
        let other = "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n";
        assert!(matches!(asked(other).verify().err(), Some(FormRefusal::Csr(_))));
    }

    //= EXC-05
    #[test]
    fn each_form_that_is_no_request_is_refused_by_name() {
        for name in ["grant_type", "subject_token", "subject_token_type"] {
            assert_eq!(without(name, None), Some(FormRefusal::Missing(name)));
            assert_eq!(with(&[(name, "again")]).err(), Some(FormRefusal::Twice(name)));
        }
        assert_eq!(without("grant_type", Some("client_credentials")), Some(FormRefusal::GrantType));
        assert_eq!(without("subject_token_type", Some("urn:x")), Some(FormRefusal::SubjectTokenType));
        assert_eq!(without("audience", None), Some(FormRefusal::Audience(AudienceRefusal::None)));
        for (name, value, wanted) in [
            ("requested_token_type", "urn:x", FormRefusal::RequestedTokenType),
            ("actor_token", "a.b.c", FormRefusal::Actor),
            ("resource", "https://db", FormRefusal::Resource),
        ] {
            assert_eq!(with(&[(name, value)]).err(), Some(wanted));
        }
        assert!(matches!(with(&[("scope", "openid")]).err(), Some(FormRefusal::Scope(_))));
        assert!(matches!(with(&[("scope", "spiffe://td/a spiffe://td/b")]).err(), Some(FormRefusal::Scope(_))));
        let many = vec![("x", "y"); MAX_PARAMETERS];
        assert_eq!(with(&many).err(), Some(FormRefusal::TooManyParameters));
    }

    #[test]
    fn forms_survive_damage() {
        let good = form(&[&GOOD[..], &[("scope", "spiffe://td/deploy")]].concat());
        let csr = form(&[&GOOD[..], &[("requested_token_type", X509_SVID), ("csr", &request())]].concat());
        ironroot_fuzz::Target::new("token exchange").seed(good).seed(csr).survives(|bytes| {
            if let Ok(read) = ExchangeRequest::parse(bytes) {
                assert!(!read.token.is_empty());
                let _ = read.wanted.verified();
            }
        });
    }
}
