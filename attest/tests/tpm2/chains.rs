//! Chains as makers build them: critical certificatePolicies, which webpki does not process, and CAs that are not sent.

use ironroot_attest::ek_certificate::{EkCertificate, EkCertificateError, ManufacturerRoots};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::manufacturer::{NOW, ca, ek_params, issue};
use crate::software_tpm::Decryptor;

type Verdict = Result<(), EkCertificateError>;

/// A root, a middle CA, an issuing CA and a leaf, the three last ones with critical certificatePolicies.
struct Maker {
    root: CertificateParams,
    middle: CertificateParams,
    issuing: CertificateParams,
    leaf: CertificateParams,
    spki: Vec<u8>,
}

impl Maker {
    fn new() -> Self {
        let spki = Decryptor::p256().spki_der();
        let (middle, issuing, leaf) = (ca("Toy Middle CA"), ca("Toy EK CA"), ek_params(&spki));
        let mut maker = Self { root: ca("Toy Root"), middle, issuing, leaf, spki };
        for params in [&mut maker.middle, &mut maker.issuing, &mut maker.leaf] {
            params.custom_extensions.push(critical(&[2, 5, 29, 32], &[0x30, 6, 0x30, 4, 6, 2, 0x2a, 3]));
        }
        maker
    }

    /// Leaf, issuing CA, middle CA; and what is trusted.
    fn build(&self) -> (Vec<Vec<u8>>, ManufacturerRoots) {
        let key = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("key");
        let (root_key, middle_key, issuing_key) = (key(), key(), key());
        let root = self.root.clone();
        let roots = ManufacturerRoots::from_pem(&root.self_signed(&root_key).expect("signs").pem()).expect("roots");
        let root = Issuer::new(root, root_key);
        let middle_der = self.middle.signed_by(&middle_key, &root).expect("signs").der().to_vec();
        let middle = Issuer::new(self.middle.clone(), middle_key);
        let issuing_der = self.issuing.signed_by(&issuing_key, &middle).expect("signs").der().to_vec();
        let issuing = Issuer::new(self.issuing.clone(), issuing_key);
        (vec![issue(&self.leaf, &self.spki, &issuing), issuing_der, middle_der], roots)
    }

    /// Without policies: a chain that webpki goes along.
    fn plain(mut self) -> Self {
        for params in [&mut self.middle, &mut self.issuing, &mut self.leaf] {
            params.custom_extensions.retain(|extension| extension.oid_components().ne([2, 5, 29, 32]));
        }
        self
    }

    fn verdict(&self) -> Verdict {
        let (chain, roots) = self.build();
        judge(&chain, &roots)
    }
}

fn judge(chain: &[Vec<u8>], roots: &ManufacturerRoots) -> Verdict {
    EkCertificate::parse(&chain[0])?.verify(&chain[1..], roots, NOW).map(|_| ())
}

fn critical(oid: &[u64], content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(true);
    extension
}

fn refused(change: impl FnOnce(&mut Maker)) -> EkCertificateError {
    let mut maker = Maker::new();
    change(&mut maker);
    maker.verdict().expect_err("refused")
}

fn untrusted(error: webpki::Error) -> EkCertificateError {
    EkCertificateError::Untrusted(error)
}

#[test]
fn critical_certificate_policies_break_no_chain() {
    Maker::new().verdict().expect("a chain with critical policies in leaf and CAs");
    let mut plain_leaf = Maker::new();
    plain_leaf.leaf.custom_extensions.pop();
    plain_leaf.verdict().expect("a chain with critical policies in CAs");
}

#[test]
fn the_order_of_the_cas_does_not_matter_and_strangers_among_them_neither() {
    let (mut chain, roots) = Maker::new().build();
    let (others, _) = Maker::new().build();
    // Same names, other keys.
    chain.splice(1..1, others[1..].iter().cloned());
    chain[1..].reverse();
    judge(&chain, &roots).expect("accepted");
}

#[test]
fn a_chain_with_policies_is_checked_as_strictly_as_any() {
    for (what, error, expected) in [
        (
            "another critical extension of a CA",
            refused(|maker| maker.issuing.custom_extensions.push(critical(&[1, 2, 3, 4], &[5, 0]))),
            untrusted(webpki::Error::UnsupportedCriticalExtension),
        ),
        (
            "another critical extension of the leaf",
            refused(|maker| maker.leaf.custom_extensions.push(critical(&[1, 2, 3, 4], &[5, 0]))),
            untrusted(webpki::Error::UnsupportedCriticalExtension),
        ),
        (
            "a CA that demands a policy",
            refused(|maker| {
                let demanding = CustomExtension::from_oid_content(&[2, 5, 29, 36], vec![0x30, 3, 0x80, 1, 0]);
                maker.middle.custom_extensions.push(demanding);
            }),
            untrusted(webpki::Error::UnsupportedCriticalExtension),
        ),
        (
            "name constraints",
            refused(|maker| {
                let constraints = CustomExtension::from_oid_content(&[2, 5, 29, 30], vec![0x30, 0]);
                maker.middle.custom_extensions.push(constraints);
            }),
            untrusted(webpki::Error::UnsupportedCriticalExtension),
        ),
        (
            "an expired CA",
            refused(|maker| maker.issuing.not_after = date_time_ymd(2025, 1, 1)),
            EkCertificateError::Expired,
        ),
        (
            "a CA of the future",
            refused(|maker| maker.middle.not_before = date_time_ymd(2030, 1, 1)),
            EkCertificateError::NotYetValid,
        ),
        (
            "an expired leaf",
            refused(|maker| maker.leaf.not_after = date_time_ymd(2025, 1, 1)),
            EkCertificateError::Expired,
        ),
        (
            "an issuer that is no CA",
            refused(|maker| maker.issuing.is_ca = IsCa::ExplicitNoCa),
            untrusted(webpki::Error::EndEntityUsedAsCa),
        ),
        (
            "an issuer that does not say it is a CA",
            refused(|maker| maker.issuing.is_ca = IsCa::NoCa),
            untrusted(webpki::Error::EndEntityUsedAsCa),
        ),
        (
            "a path that is too long",
            refused(|maker| maker.middle.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
            untrusted(webpki::Error::PathLenConstraintViolated),
        ),
        (
            "a CA that may not sign certificates",
            refused(|maker| maker.issuing.key_usages = vec![KeyUsagePurpose::CrlSign]),
            untrusted(webpki::Error::UnknownIssuer),
        ),
        (
            "a CA for something else",
            refused(|maker| maker.issuing.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            EkCertificateError::ExtendedKeyUsage,
        ),
    ] {
        assert_eq!(error, expected, "{what}");
    }
    let mut longer = Maker::new();
    longer.middle.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    longer.verdict().expect("one CA below is allowed");
}

#[test]
fn a_changed_byte_anywhere_in_a_chain_with_policies_is_refused() {
    let (chain, roots) = Maker::new().build();
    judge(&chain, &roots).expect("unchanged");
    for certificate in 0..chain.len() {
        for at in (0..chain[certificate].len()).step_by(7) {
            let mut changed = chain.clone();
            changed[certificate][at] ^= 1;
            judge(&changed, &roots).expect_err("changed");
        }
    }
}

#[test]
fn an_endorsement_key_makes_no_other_even_with_policies() {
    let maker = Maker::new();
    let (chain, roots) = maker.build();
    let signer = KeyPair::generate().expect("key");
    let forged = issue(&maker.leaf, &maker.spki, &Issuer::new(maker.leaf.clone(), signer));
    judge(&[&[forged], &chain[..]].concat(), &roots).expect_err("refused");
}

#[test]
fn many_cas_with_one_name_cost_no_more_than_a_few_signatures() {
    let (chain, roots) = Maker::new().build();
    let mut crowd = vec![chain[0].clone()];
    for _ in 0..200 {
        crowd.push(chain[1].clone());
    }
    let start = std::time::Instant::now();
    judge(&crowd, &roots).expect_err("the middle CA is missing");
    assert!(start.elapsed() < std::time::Duration::from_secs(10));
}

//= FLT-T9
#[test]
fn a_refusal_for_want_of_a_ca_names_it_and_where_to_get_it() {
    let mut maker = Maker::new().plain();
    let address = b"http://maker.example/ek-ca.crt";
    let access = [&[0x30, 42, 0x30, 40, 6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 2, 0x86, 28][..], &address[..28]].concat();
    maker.leaf.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access));
    let (chain, roots) = maker.build();
    let error = judge(&chain[..1], &roots).expect_err("roots alone");
    let text = error.to_string();
    assert!(text.contains("CN=Toy EK CA") && text.contains("http://maker.example/ek-ca."), "{text}");
    let error = judge(&chain[..2], &roots).expect_err("the middle CA is missing");
    assert!(error.to_string().contains("CN=Toy Middle CA"), "{error}");
    judge(&chain, &roots).expect("whole");
}

/// webpki looks at none of this, and at chains with policies it is not asked.
#[test]
fn a_makers_ca_counts_while_it_is_valid_and_may_sign_with_policies_and_without() {
    let with = |change: &dyn Fn(&mut Maker)| {
        [Maker::new(), Maker::new().plain()].map(|mut maker| {
            change(&mut maker);
            maker.verdict()
        })
    };
    let both = |error: EkCertificateError| [Err(error.clone()), Err(error)];
    assert_eq!(with(&|_| {}), [Ok(()), Ok(())]);
    let ended = with(&|maker| maker.root.not_after = date_time_ymd(2025, 1, 1));
    assert_eq!(ended, both(EkCertificateError::Expired));
    let future = with(&|maker| maker.root.not_before = date_time_ymd(2030, 1, 1));
    assert_eq!(future, both(EkCertificateError::NotYetValid));
    let short = with(&|maker| maker.root.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)));
    assert_eq!(short, both(untrusted(webpki::Error::PathLenConstraintViolated)));
    assert_eq!(with(&|maker| maker.root.is_ca = IsCa::Ca(BasicConstraints::Constrained(2))), [Ok(()), Ok(())]);
    let no_signer = with(&|maker| maker.issuing.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let [policies, plain] = no_signer.map(|verdict| verdict.expect_err("refused"));
    assert_eq!(policies, untrusted(webpki::Error::UnknownIssuer));
    assert_eq!(plain, untrusted(webpki::Error::EndEntityUsedAsCa));
}
