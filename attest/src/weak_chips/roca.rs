//! RSA keys of Infineon's weak library (CVE-2017-15361), by their modulus.
//!
//! Its primes are k·M + (65537^a mod M), where M is the product of the first primes, and so is the product of two of them: modulo each
//! small prime such a modulus is a power of 65537. Source: Nemec, Sýs, Švenda, Klinec, Matyáš, "The Return of Coppersmith's Attack:
//! Practical Factorization of Widely Used RSA Moduli", CCS 2017, §3.

use crate::structures::PublicKey;

/// Those of the first primes modulo which 65537 generates less than everything, and those between: all that divide M for keys of 512
/// bits and more. A modulus of another library is a power modulo each of them once in some hundred million times.
const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];
const GENERATOR: u32 = 65537;

/// Whether this is an RSA key whose modulus shows that Infineon's weak library made it: its private half can be computed.
pub fn has_roca_fingerprint(key: &PublicKey) -> bool {
    //= TPM-40 TPM 2.0 Part 2, TPMS_ATTEST: "chips with known faults"
    key.is_rsa() && PRIMES.iter().all(|prime| is_power_of_generator(modulo(key.numbers(), *prime), *prime))
}

fn modulo(big_endian: &[u8], prime: u32) -> u32 {
    big_endian.iter().fold(0, |rest, byte| (rest << 8 | u32::from(*byte)) % prime)
}

fn is_power_of_generator(rest: u32, prime: u32) -> bool {
    let powers = std::iter::successors(Some(1), |power| Some(power * (GENERATOR % prime) % prime));
    powers.take(prime as usize - 1).any(|power| power == rest)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::KeyPair as _;

    use super::*;

    /// A power of 65537, big-endian, `bytes` long: times 2^16 + 1 is a shift and an addition.
    fn power(exponent: usize, bytes: usize) -> Vec<u8> {
        let mut number = vec![0_u8; bytes];
        number[bytes - 1] = 1;
        for _ in 0..exponent {
            assert_eq!(number[..2], [0; 2], "it fits");
            let shifted: Vec<u8> = number[2..].iter().copied().chain([0, 0]).collect();
            let mut carry = 0_u16;
            for (byte, other) in number.iter_mut().zip(&shifted).rev() {
                let sum = u16::from(*byte) + u16::from(*other) + carry;
                (*byte, carry) = (sum as u8, sum >> 8);
            }
            assert_eq!(carry, 0, "it fits");
        }
        number
    }

    //= TPM-40
    #[test]
    fn a_modulus_of_that_library_is_told_and_others_are_not() {
        let weak = power(127, 255);
        assert!(PRIMES.iter().all(|prime| is_power_of_generator(modulo(&weak, *prime), *prime)));
        let mut near = weak.clone();
        *near.last_mut().expect("not empty") ^= 2;
        assert!(!PRIMES.iter().all(|prime| is_power_of_generator(modulo(&near, *prime), *prime)));
        for _ in 0..3 {
            let pair = KeyPair::generate(KeySize::Rsa2048).expect("key");
            let spki = pair.public_key().as_der().expect("encodes");
            assert!(!has_roca_fingerprint(&PublicKey::from_spki_der(spki.as_ref()).expect("a key")));
        }
        let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
        let spki = rcgen::PublicKeyData::subject_public_key_info(&p256);
        assert!(!has_roca_fingerprint(&PublicKey::from_spki_der(&spki).expect("a key")));
    }
}
