//! Reading TPM structures: big-endian integers and sized buffers, bounded, to the exact end.

use thiserror::Error;

/// Why bytes are not the structure they should be, or one that we do not accept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum StructureError {
    /// A field reaches past the end.
    #[error("it is truncated")]
    Truncated,
    /// Bytes follow the structure.
    #[error("{0} bytes follow its end")]
    Trailing(usize),
    /// A sized buffer is longer than the standard allows.
    #[error("a field of {bytes} bytes exceeds its limit of {limit}")]
    TooLong {
        bytes: usize,
        /// The bound of Part 2.
        limit: usize,
    },
    /// Object type other than RSA or ECC (TPMI_ALG_PUBLIC).
    #[error("object type {0:#06x} is not RSA or ECC")]
    ObjectType(u16),
    /// Hash other than SHA-256, SHA-384 or SHA-512. SHA-1 is 0x0004.
    #[error("hash algorithm {0:#06x} is not SHA-256, SHA-384 or SHA-512")]
    HashAlgorithm(u16),
    /// Curve other than P-256 and P-384 (TPM_ECC_CURVE).
    #[error("curve {0:#06x} is not P-256 or P-384")]
    EccCurve(u16),
    /// Symmetric algorithm other than AES-CFB with 128, 192 or 256 bits.
    #[error("symmetric algorithm {algorithm:#06x} with {bits} bits is not AES in CFB mode")]
    Symmetric { algorithm: u16, bits: u16 },
    /// Asymmetric scheme that no key of ours has.
    #[error("scheme {0:#06x} is not accepted")]
    Scheme(u16),
    /// Signature other than RSASSA or ECDSA. 0x0010, TPM_ALG_NULL, is what a TPM gives when nothing signed.
    #[error("signature algorithm {0:#06x} is not RSASSA or ECDSA")]
    SignatureAlgorithm(u16),
    /// A name that is neither empty nor a hash algorithm with its digest.
    #[error("a name is malformed")]
    Name,
    /// Digest length other than its algorithm's.
    #[error("a digest has {0} bytes, which is not its algorithm's length")]
    DigestLength(usize),
    /// A PCR selection that the standard does not allow.
    #[error("a PCR selection is malformed")]
    PcrSelection,
    /// An attestation without TPM_GENERATED: a TPM did not make it.
    #[error("its magic is {0:#010x}, not TPM_GENERATED")]
    Magic(u32),
    /// An attestation that is neither a quote nor a certify nor of a creation (TPMI_ST_ATTEST).
    #[error("attestation type {0:#06x} is neither quote nor certify nor creation")]
    AttestationType(u16),
    /// TPMI_YES_NO other than 0 and 1.
    #[error("a yes/no field is {0}")]
    YesNo(u8),
    /// Reserved attribute bits are set (TPMA_OBJECT).
    #[error("its attributes {0:#010x} have reserved bits set")]
    Attributes(u32),
    /// RSA exponent 0 stands for 65537; nothing else is accepted.
    #[error("the RSA exponent {0} is not 65537")]
    RsaExponent(u32),
    /// The modulus is not as long as keyBits says.
    #[error("the RSA modulus has {bytes} bytes where {bits} bits are declared")]
    RsaModulus { bytes: usize, bits: u16 },
}

/// Reads from the front of `rest`.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads one whole structure: `parse` must leave nothing over.
    pub(crate) fn whole<T, E: From<StructureError>>(
        bytes: &'a [u8],
        parse: impl FnOnce(&mut Reader<'a>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut reader = Reader { rest: bytes };
        let value = parse(&mut reader)?;
        //= TPM-28 TPM 2.0 Part 2, Conventions: "a structure ends where its bytes end"
        if reader.rest.is_empty() { Ok(value) } else { Err(StructureError::Trailing(reader.rest.len()).into()) }
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], StructureError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(StructureError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// One byte; [`StructureError::Truncated`] at the end, as the numbers below.
    pub(crate) fn u8(&mut self) -> Result<u8, StructureError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, big-endian: UINT16, TPM_ALG_ID, TPM_ST and the sizes of all TPM2B.
    pub(crate) fn u16(&mut self) -> Result<u16, StructureError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian: UINT32, TPMA_OBJECT, TPM_GENERATED, counts of lists.
    pub(crate) fn u32(&mut self) -> Result<u32, StructureError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, big-endian: UINT64, such as a clock's milliseconds.
    pub(crate) fn u64(&mut self) -> Result<u64, StructureError> {
        self.array().map(u64::from_be_bytes)
    }

    /// The content of a TPM2B of at most `limit` bytes.
    pub(crate) fn sized(&mut self, limit: usize) -> Result<&'a [u8], StructureError> {
        let bytes = usize::from(self.u16()?);
        if bytes > limit {
            return Err(StructureError::TooLong { bytes, limit });
        }
        self.take(bytes)
    }

    /// The content of a TPM2B of at most `N` bytes, copied into a buffer of that bound.
    pub(crate) fn bounded<const N: usize>(&mut self) -> Result<heapless::Vec<u8, N>, StructureError> {
        let bytes = self.sized(N)?;
        heapless::Vec::from_slice(bytes).map_err(|_| StructureError::TooLong { bytes: bytes.len(), limit: N })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StructureError> {
        Ok(self.take(N)?.try_into().expect("take gives N bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= TPM-28
    #[test]
    fn reads_to_the_exact_end_and_never_past_it() {
        let read = |bytes: &[u8]| Reader::whole(bytes, |r| Ok::<_, StructureError>((r.u8()?, r.sized(3)?.to_vec())));
        assert_eq!(read(&[9, 0, 2, 1, 2]), Ok((9, vec![1, 2])));
        assert_eq!(read(&[9, 0, 2, 1]), Err(StructureError::Truncated));
        assert_eq!(read(&[9, 0]), Err(StructureError::Truncated));
        assert_eq!(read(&[9, 0, 1, 1, 7, 7]), Err(StructureError::Trailing(2)));
        assert_eq!(read(&[9, 0xff, 0xff]), Err(StructureError::TooLong { bytes: 0xffff, limit: 3 }));
    }
}
