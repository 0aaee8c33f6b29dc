//! Structures over the range of their fields: what the writer of the tests writes, the parser reads, and nothing else.

use ironroot_attest::structures::{Attest, Attested, Curve, Hash, Public, PublicKey, Scheme};

use crate::software_tpm::{
    AttestFields, CERTIFY, Decryptor, ECDSA, PublicFields, QUOTE, RSASSA, SHA256, SHA384, SigningKey, Unique,
    certify_info, name, quote_info,
};

const SHA512: u16 = 0x000d;

fn hash(id: u16) -> Hash {
    Hash::from_id(id).expect("known")
}

fn key(unique: &Unique) -> PublicKey {
    match unique {
        Unique::Rsa { modulus, .. } => PublicKey::rsa(modulus).expect("valid"),
        Unique::Ecc { curve, x, y } => PublicKey::ecc(Curve::from_id(*curve).expect("known"), x, y).expect("valid"),
    }
}

#[test]
fn public_areas_of_every_shape() {
    let uniques = [SigningKey::p256().unique(), SigningKey::p384().unique(), Decryptor::rsa().unique()];
    let attributes = [0x0003_00b2, 0x0005_0472, 0x0004_0472, 0, 0x000f_0ff6];
    let policies = [vec![], vec![7; 32], vec![9; 48], vec![1; 64]];
    let schemes = [None, Some((ECDSA, SHA256)), Some((ECDSA, SHA384)), Some((RSASSA, SHA512))];
    let mut count = 0;
    for unique in &uniques {
        for (attributes, policy) in attributes.iter().flat_map(|a| policies.iter().map(move |p| (*a, p.clone()))) {
            for (scheme, symmetric_bits) in
                schemes.iter().flat_map(|s| [None, Some(128), Some(192), Some(256)].map(|b| (*s, b)))
            {
                for name_hash in [SHA256, SHA384] {
                    let fields = PublicFields {
                        name_hash,
                        attributes,
                        policy: policy.clone(),
                        symmetric_bits,
                        scheme,
                        ..PublicFields::storage(unique.clone(), SHA256, 0)
                    };
                    agrees(&fields);
                    count += 1;
                }
            }
        }
    }
    assert_eq!(count, 1920);
}

fn agrees(fields: &PublicFields) {
    let public = Public::parse(&fields.marshal()).expect("parses");
    assert_eq!(public.name_hash(), hash(fields.name_hash));
    assert_eq!(public.name().as_bytes(), name(fields));
    assert_eq!(public.attributes().bits(), fields.attributes);
    assert_eq!(public.symmetric_bits(), fields.symmetric_bits);
    let scheme = fields.scheme.map(
        |(scheme, id)| {
            if scheme == ECDSA { Scheme::Ecdsa(hash(id)) } else { Scheme::RsaSsa(hash(id)) }
        },
    );
    assert_eq!(public.scheme(), scheme);
    assert_eq!(*public.key(), key(&fields.unique));
}

/// Chips that strip leading zeros: the key is the same, the name is over the bytes received.
#[test]
fn stripped_coordinates_name_another_object_with_the_same_key() {
    let (full, x, y) = std::iter::repeat_with(|| SigningKey::p256().unique())
        .find_map(|unique| match &unique {
            Unique::Ecc { x, y, .. } if x[0] == 0 => Some((unique.clone(), x[1..].to_vec(), y.clone())),
            _ => None,
        })
        .expect("one key in 256");
    let full = PublicFields::storage(full, SHA256, 0x0003_00b2);
    let stripped = PublicFields { unique: Unique::Ecc { curve: 3, x, y }, ..full.clone() };
    let parse = |fields: &PublicFields| Public::parse(&fields.marshal()).expect("parses");
    assert_eq!(parse(&full).key(), parse(&stripped).key());
    assert_ne!(parse(&full).name(), parse(&stripped).name());
    assert_eq!(parse(&stripped).name().as_bytes(), name(&stripped));
}

#[test]
fn attestations_over_the_range_of_their_fields() {
    let signer = [&SHA256.to_be_bytes()[..], &[3; 32]].concat();
    for extra_bytes in [0, 1, 32, 66] {
        for (clock, reset_count, restart_count, safe) in
            [(0, 0, 0, 0), (u64::MAX, u32::MAX, u32::MAX, 1), (1 << 40, 9, 4, 1)]
        {
            for info in [quote_info(&[(SHA256, 0x80_0015), (0x0004, 1)], &[5; 32]), quote_info(&[], &[])] {
                let fields = AttestFields {
                    clock,
                    reset_count,
                    restart_count,
                    safe,
                    ..AttestFields::new(QUOTE, signer.clone(), &vec![8; extra_bytes], info)
                };
                let attest = Attest::parse(&fields.marshal()).expect("parses");
                assert_eq!(attest.qualified_signer().as_bytes(), signer);
                assert_eq!(attest.extra_data(), fields.extra_data);
                let read = attest.clock();
                assert_eq!(
                    (read.clock, read.reset_count, read.restart_count, read.safe),
                    (clock, reset_count, restart_count, safe == 1)
                );
                assert_eq!(attest.firmware_version(), fields.firmware_version);
            }
        }
    }
}

#[test]
fn quotes_and_certifications_say_what_they_are_about() {
    let signer = [&SHA384.to_be_bytes()[..], &[3; 48]].concat();
    let info = quote_info(&[(SHA256, 0x80_0015), (0x0004, 1)], &[5; 32]);
    let quote = Attest::parse(&AttestFields::new(QUOTE, signer.clone(), b"x", info).marshal()).expect("parses");
    let Attested::Quote(quote) = quote.attested() else { panic!("a quote") };
    let banks: Vec<_> = quote.banks().iter().map(|bank| (bank.hash, bank.mask)).collect();
    assert_eq!(banks, [(SHA256, 0x80_0015), (0x0004, 1)]);
    assert_eq!(quote.digest(), [5; 32]);
    let info = certify_info(&signer);
    let certify = Attest::parse(&AttestFields::new(CERTIFY, signer.clone(), b"x", info).marshal()).expect("parses");
    let Attested::Certify { name } = certify.attested() else { panic!("a certify") };
    assert_eq!(name.as_bytes(), signer);
}

/// Counts and lengths that promise more than there is.
//= TPM-28
#[test]
fn hostile_lengths_cost_nothing() {
    let signer = [&SHA256.to_be_bytes()[..], &[3; 32]].concat();
    let refused = |info: Vec<u8>| {
        Attest::parse(&AttestFields::new(QUOTE, signer.clone(), b"", info).marshal()).expect_err("refused");
    };
    refused(u32::MAX.to_be_bytes().to_vec());
    refused([&17_u32.to_be_bytes()[..], &[0; 51], &[0, 0]].concat());
    refused([&1_u32.to_be_bytes()[..], &[0, 0x0b, 0xff]].concat());
    refused([&0_u32.to_be_bytes()[..], &[0xff, 0xff]].concat());
}
