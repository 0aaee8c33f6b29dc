//! Keys in the TPM: made there below the owner's storage root key, and kept in the set of files, wrapped, as `TSS2 PRIVATE KEY`.
//!
//! The chip keeps nothing: a key is gone with its file, and whoever has the file can use it on this device, and nowhere else. The chip is
//! opened for each certificate and let go of, since it is others' too.

use der::asn1::{ObjectIdentifier, OctetString};
use der::{Encode, Sequence};
use ironroot_attest::tpm::{KeyBlob, Tpm, TpmAddress, TpmError};

use crate::agent_key::{KeyError, TpmKey};
use crate::pem;

/// id-loadablekey. Source: TCG OID registry; "ASN.1 Specification for TPM 2.0 Key Files" (Bottomley, Woodhouse), §3.1.
const LOADABLE_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.3");
/// The owner's hierarchy, below which a primary key of the usual template is the parent. Source: TPM 2.0 Part 2, §7.4; the same, §3.1.4.
const OWNER: u32 = 0x4000_0001;

/// A key outside of the chip, wrapped, and under which handle its parent is found.
#[derive(Clone, Debug)]
pub(super) struct ChipKey {
    pub(super) blob: KeyBlob,
    parent: u32,
    spki: Vec<u8>,
}

/// Source: the same, §3.1. Left out: a policy, a secret, a description.
#[derive(Sequence)]
struct TpmKeyFile {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    has_empty_authorization: Option<bool>,
    parent: u32,
    /// TPM2B_PUBLIC.
    public: OctetString,
    /// TPM2B_PRIVATE.
    private: OctetString,
}

/// The chip of this device.
#[derive(Debug)]
pub(super) struct ChipStore {
    pub(super) address: TpmAddress,
}

impl ChipStore {
    async fn opened(&self) -> Result<Tpm, KeyError> {
        Tpm::open(self.address.clone()).await.map_err(KeyError::Tpm)
    }

    /// The wrapped key, if this chip can use it; not if it was cleared since, or is another one.
    pub(super) async fn find(&self, blob: &KeyBlob) -> Result<Option<ChipKey>, KeyError> {
        let (tpm, tried) = (self.opened().await?, blob.clone());
        let signed = tpm.run("try a key", move |chip| chip.sign_digest(&tried, &[0; 32])).await;
        match signed {
            Ok(_) => ChipKey::of(&tpm, blob.clone()).await.map(Some),
            Err(TpmError::ForeignParent | TpmError::ForeignKey(_)) => Ok(None),
            Err(error) => Err(KeyError::Tpm(error)),
        }
    }

    /// A new key.
    pub(super) async fn make(&self) -> Result<ChipKey, KeyError> {
        let tpm = self.opened().await?;
        let blob = tpm.run("create a key", |chip| chip.create_signing_key()).await.map_err(KeyError::Tpm)?;
        ChipKey::of(&tpm, blob).await
    }

    /// The key, ready to sign.
    pub(super) async fn ready(&self, key: &ChipKey) -> Result<TpmKey, KeyError> {
        TpmKey::new(self.opened().await?, key.blob.clone())
    }
}

impl ChipKey {
    async fn of(tpm: &Tpm, blob: KeyBlob) -> Result<Self, KeyError> {
        let (found, spki) = (blob.clone(), blob.spki_der().map_err(KeyError::Tpm)?);
        let parent = tpm.run("find a key's parent", move |chip| chip.persistent_root_of(&found)).await;
        Ok(Self { blob, parent: parent.map_err(KeyError::Tpm)?.unwrap_or(OWNER), spki })
    }

    /// DER SubjectPublicKeyInfo.
    pub(super) fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The key's file, as tpm2-openssl and others read it.
    pub(super) fn pem(&self) -> Result<String, der::Error> {
        let sized = |bytes: &[u8]| {
            let size = u16::try_from(bytes.len())?.to_be_bytes();
            OctetString::new([&size[..], bytes].concat())
        };
        let file = TpmKeyFile {
            kind: LOADABLE_KEY,
            has_empty_authorization: Some(true),
            parent: self.parent,
            public: sized(&self.blob.public)?,
            private: sized(&self.blob.private)?,
        };
        Ok(pem::tpm_key(&file.to_der()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_as_its_specification_has_it() {
        let blob = KeyBlob { public: vec![1, 2, 3], private: vec![4, 5], parent: vec![6] };
        let key = ChipKey { blob, parent: 0x8100_0001, spki: Vec::new() };
        let pem = key.pem().expect("short");
        let der = der::pem::decode_vec(pem.as_bytes()).expect("PEM");
        let expected =
            concat!("3021", "06066781050a0103", "a0030101ff", "02050081000001", "04050003010203", "040400020405");
        let hex: String = der.1.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((der.0, hex.as_str()), ("TSS2 PRIVATE KEY", expected));
    }
}
