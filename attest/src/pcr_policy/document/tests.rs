use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

use super::*;
use crate::pcr_policy::AuthorityError;
use crate::structures::{Public, Signature};

fn spki(key: &impl KeyPair<PublicKey: AsDer<aws_lc_rs::encoding::PublicKeyX509Der<'static>>>) -> Vec<u8> {
    key.public_key().as_der().expect("encodes").as_ref().to_vec()
}

fn statement(epoch: u32) -> Statement {
    let epoch = epoch.try_into().expect("legal");
    Statement::new("firmware 1.3", epoch, PcrHash::Sha256, &[(7, vec![0x5a; 32])].into()).expect("a state")
}

fn p256() -> (PolicyAuthority, impl Fn(&Statement) -> Vec<u8>) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("key");
    let authority = PolicyAuthority::from_spki_der(&spki(&key)).expect("usable");
    let sign = move |statement: &Statement| {
        key.sign(&SystemRandom::new(), &statement.to_be_signed()).expect("signed").as_ref().to_vec()
    };
    (authority, sign)
}

fn rsa() -> (PolicyAuthority, Vec<u8>) {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("key");
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &statement(1).to_be_signed(), &mut signature).expect("signed");
    (PolicyAuthority::from_spki_der(&spki(&key)).expect("usable"), signature)
}

fn signed() -> (PolicyAuthority, SignedPolicy) {
    let (authority, sign) = p256();
    let signature = sign(&statement(1));
    let signed = SignedPolicy::new(statement(1), &authority, signature).expect("signed");
    (authority, signed)
}

#[test]
fn what_is_written_is_read_and_believed_with_keys_of_both_kinds() {
    let (p256, by_p256) = signed();
    let (rsa, signature) = rsa();
    let by_rsa = SignedPolicy::new(statement(1), &rsa, signature).expect("signed");
    for (authority, signed) in [(&p256, by_p256), (&rsa, by_rsa)] {
        let read = SignedPolicy::parse(signed.to_json().as_bytes()).expect("reads");
        assert_eq!(read, signed);
        let authentic = read.authenticate(authority).expect("believed");
        assert_eq!((authentic.name(), authentic.epoch()), ("firmware 1.3", Epoch::FIRST));
        // The form that the chip is given says the same.
        let public = Public::parse(authentic.public_area()).expect("TPMT_PUBLIC");
        assert_eq!(public.name(), &authority.name());
        let signature = Signature::parse(authentic.tpm_signature()).expect("TPMT_SIGNATURE");
        assert_eq!(Some(signature.scheme()), public.scheme());
        assert!(signature.is_by(public.key(), &statement(1).to_be_signed()));
    }
}

//= TPM-45
#[test]
fn what_another_key_has_signed_or_nobody_is_refused_by_name() {
    let (_, policy) = signed();
    let (other, sign) = p256();
    assert!(matches!(policy.clone().authenticate(&other), Err(SignedPolicyRefusal::OtherKey { .. })));
    let claims_to_be_theirs = SignedPolicy { key_sha256: other.fingerprint(), ..policy.clone() };
    assert_eq!(claims_to_be_theirs.authenticate(&other), Err(SignedPolicyRefusal::Signature));
    assert_eq!(SignedPolicy::new(statement(1), &other, sign(&statement(2))), Err(SignedPolicyRefusal::Signature));
    for change in [
        (|s: &mut SignedPolicy| s.statement.epoch = Epoch::try_from(2).expect("legal")) as fn(&mut SignedPolicy),
        |s| s.statement.policy[0] ^= 1,
        |s| s.signature.truncate(10),
        |s| s.signature.clear(),
    ] {
        let (authority, mut changed) = signed();
        change(&mut changed);
        assert_eq!(changed.authenticate(&authority), Err(SignedPolicyRefusal::Signature));
    }
}

//= TPM-46
#[test]
fn policies_of_other_registers_or_epochs_are_refused_by_name() {
    let (authority, policy) = signed();
    let policy = policy.authenticate(&authority).expect("believed");
    let pcrs = |text: &str| text.parse().expect("legal");
    assert_eq!(policy.about(PcrHash::Sha256, pcrs("7")), Ok(()));
    for (bank, selection) in [(PcrHash::Sha384, "7"), (PcrHash::Sha256, "0,7"), (PcrHash::Sha256, "4")] {
        let refused = policy.about(bank, pcrs(selection));
        assert!(matches!(refused, Err(SignedPolicyRefusal::OtherRegisters { .. })), "{refused:?}");
    }
    let epoch = |number: u32| Epoch::try_from(number).expect("legal");
    assert_eq!(policy.within(epoch(1)), Ok(()));
    assert_eq!(policy.within(epoch(2)), Err(SignedPolicyRefusal::Withdrawn { epoch: epoch(1), first: epoch(2) }));
    let (authority, sign) = p256();
    let ahead = SignedPolicy::new(statement(9), &authority, sign(&statement(9))).expect("signed");
    let ahead = ahead.authenticate(&authority).expect("believed");
    assert_eq!(ahead.within(epoch(3)), Ok(()));
    assert_eq!(ahead.within(epoch(2)), Err(SignedPolicyRefusal::TooFarAhead { epoch: epoch(9), last: epoch(8) }));
}

#[test]
fn files_that_are_none_are_refused_by_name() {
    use SignedPolicyRefusal::{Format, Malformed, Registers, TooLarge};
    let (_, policy) = signed();
    let good: Value = serde_json::from_str(&policy.to_json()).expect("JSON");
    let with = |key: &str, value: Value| {
        let mut other = good.clone();
        other[key] = value;
        SignedPolicy::parse(other.to_string().as_bytes()).expect_err("refused")
    };
    assert!(matches!(with("format", json!("ironroot-signed-pcr-policy-9")), Format(_)));
    for (key, value) in [
        ("name", json!("")),
        ("name", json!("n".repeat(256))),
        ("epoch", json!(0)),
        ("epoch", json!(4_294_967_295_u32)),
        ("policy", json!("5a")),
        ("key", json!("zz".repeat(32))),
        ("signature", json!("%")),
        ("else", json!(1)),
    ] {
        assert!(matches!(with(key, value.clone()), Malformed(_)), "{key} {value}");
    }
    for (key, value) in [("bank", json!("md5")), ("pcrs", json!([])), ("pcrs", json!([16]))] {
        assert!(matches!(with(key, value.clone()), Registers(_)), "{key} {value}");
    }
    let text = policy.to_json();
    for end in 0..text.trim_end().len() {
        assert!(matches!(SignedPolicy::parse(&text.as_bytes()[..end]), Err(Malformed(_))), "{end}");
    }
    assert_eq!(SignedPolicy::parse(&vec![b' '; MAX_POLICY_FILE_BYTES + 1]), Err(TooLarge));
}

#[test]
fn signed_policies_survive_damage_and_what_is_believed_was_signed() {
    let (authority, policy) = signed();
    let policy_digest = statement(1).policy();
    ironroot_fuzz::Target::new("signed PCR policy").seed(policy.to_json()).survives(|bytes| {
        if let Ok(read) = SignedPolicy::parse(bytes)
            && let Ok(authentic) = read.authenticate(&authority)
        {
            assert_eq!((authentic.policy(), authentic.epoch()), (policy_digest, Epoch::FIRST));
        }
    });
}

#[test]
fn keys_that_are_none_for_this_are_refused_by_name() {
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(PolicyAuthority::from_pem(private), Err(AuthorityError::Private));
    assert_eq!(PolicyAuthority::from_pem("nothing"), Err(AuthorityError::Pem));
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).expect("key");
    assert_eq!(PolicyAuthority::from_spki_der(&spki(&p384)), Err(AuthorityError::Curve));
    assert!(matches!(PolicyAuthority::from_spki_der(b"x"), Err(AuthorityError::Key(_))));
}
