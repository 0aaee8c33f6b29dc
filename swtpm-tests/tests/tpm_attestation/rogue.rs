//! Raw access to a chip, for what no honest agent would ask of it.

use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use ironroot_attest::node::tpm2::{Challenge, Evidence};
use ironroot_lab::swtpm::Swtpm;
use tss_esapi::abstraction::ek::create_ek_public_from_default_template;
use tss_esapi::attributes::ObjectAttributes;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{AuthHandle, KeyHandle, ObjectHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::{AsymmetricAlgorithm, HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Attest, Auth, Data, Digest, EccParameter, EccPoint, EccScheme, EncryptedSecret, HashScheme, IdObject,
    KeyDerivationFunctionScheme, Nonce, PcrSelectionList, Private, Public, PublicBuilder, PublicEccParameters,
    PublicKeyRsa, PublicRsaParameters, RsaExponent, RsaScheme, Sensitive, Signature, SignatureScheme,
    SymmetricDefinition, SymmetricDefinitionObject,
};
use tss_esapi::traits::Marshall;
use tss_esapi::{Context, Result};

/// An honest AK's attributes: sign, restricted, noDA, userWithAuth, sensitiveDataOrigin, fixedParent, fixedTPM.
pub const AK: u32 = 0x0005_0472;
/// TPMA_OBJECT restricted.
pub const RESTRICTED: u32 = 1 << 16;
/// TPMA_OBJECT fixedTPM.
pub const FIXED_TPM: u32 = 1 << 1;
/// TPMA_OBJECT fixedParent.
pub const FIXED_PARENT: u32 = 1 << 4;
/// TPMA_OBJECT sensitiveDataOrigin.
pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;

const PASSWORD: Option<AuthSession> = Some(AuthSession::Password);

/// A key in a slot of the chip.
pub struct Odd {
    pub handle: KeyHandle,
    pub public: Public,
}

impl Odd {
    pub fn bytes(&self) -> Vec<u8> {
        self.public.marshall().expect("TPMT_PUBLIC")
    }
}

/// An attacker with root and a genuine chip.
pub struct Rogue {
    pub esys: Context,
}

impl Rogue {
    pub fn new(chip: &Swtpm) -> Rogue {
        Rogue { esys: chip.esys().expect("the TPM answers") }
    }

    /// Makes and loads a key under the EK.
    pub fn child_of_ek(&mut self, template: Public) -> Odd {
        let ek = self.ek();
        let made = self
            .with_endorsement(|esys, session| {
                esys.execute_with_session(session, |esys| esys.create(ek, template, None, None, None, None))
            })
            .expect("made under the EK");
        let handle = self
            .with_endorsement(|esys, session| {
                esys.execute_with_session(session, |esys| esys.load(ek, made.out_private, made.out_public.clone()))
            })
            .expect("loaded under the EK");
        self.flush(ek);
        Odd { handle, public: made.out_public }
    }

    /// Makes and loads a key under the storage root key, in the owner hierarchy.
    pub fn child_of_root(&mut self, template: Public) -> Odd {
        let root = self.root();
        let odd = self.password(|esys| {
            let made = esys.create(root, template, None, None, None, None)?;
            let handle = esys.load(root, made.out_private, made.out_public.clone())?;
            Ok(Odd { handle, public: made.out_public })
        });
        self.flush(root);
        odd.expect("made under the root")
    }

    /// A key pair made in software, put into the chip's NULL hierarchy with TPM2_LoadExternal.
    pub fn software_key(&mut self, attributes: u32) -> Result<Odd> {
        let (sensitive, public) = software_key_pair(attributes);
        let handle = self.esys.load_external(sensitive, public.clone(), Hierarchy::Null)?;
        Ok(Odd { handle, public })
    }

    /// The public part alone of a key made in software.
    pub fn software_public(&mut self, attributes: u32) -> Odd {
        let (_, public) = software_key_pair(attributes);
        let handle = self.esys.load_external_public(public.clone(), Hierarchy::Null).expect("loaded");
        Odd { handle, public }
    }

    /// A key pair made in software, imported under the storage root key with TPM2_Import.
    pub fn imported_key(&mut self, attributes: u32) -> Odd {
        let (sensitive, public) = software_key_pair(attributes);
        let sensitive = sensitive.marshall().expect("TPMT_SENSITIVE");
        let sized = [&(sensitive.len() as u16).to_be_bytes(), sensitive.as_slice()].concat();
        let duplicate = Private::try_from(sized).expect("TPM2B_PRIVATE");
        let root = self.root();
        let handle = self.password(|esys| {
            let private = esys.import(
                root.into(),
                None,
                public.clone(),
                duplicate,
                EncryptedSecret::default(),
                SymmetricDefinitionObject::Null,
            )?;
            esys.load(root, private, public.clone())
        });
        self.flush(root);
        Odd { handle: handle.expect("imported"), public }
    }

    /// TPM2_ActivateCredential with any key as AK.
    pub fn activate(&mut self, key: &Odd, challenge: &Challenge) -> Result<Vec<u8>> {
        let ek = self.ek();
        let credential = IdObject::try_from(challenge.credential.as_slice()).expect("TPMS_ID_OBJECT");
        let secret = EncryptedSecret::try_from(challenge.secret.as_slice()).expect("encrypted secret");
        let activated = self.with_endorsement(|esys, session| {
            esys.execute_with_sessions((PASSWORD, session, None), |esys| {
                esys.activate_credential(key.handle, ek, credential, secret)
            })
        });
        self.flush(ek);
        activated.map(|secret| secret.value().to_vec())
    }

    /// TPM2_Quote by any key over any selection. TPMS_ATTEST and TPMT_SIGNATURE.
    pub fn quote(&mut self, key: &Odd, extra: &[u8; 32], selection: PcrSelectionList) -> (Vec<u8>, Vec<u8>) {
        let extra = Data::try_from(extra.as_slice()).expect("32 bytes");
        bytes(self.password(|esys| esys.quote(key.handle, extra, SignatureScheme::Null, selection)))
    }

    /// TPM2_Certify of `object` by `signer` (`KeyHandle::Null`: signed by nobody).
    pub fn certify(&mut self, object: &Odd, signer: KeyHandle, extra: &[u8; 32]) -> (Vec<u8>, Vec<u8>) {
        let extra = Data::try_from(extra.as_slice()).expect("32 bytes");
        let object = ObjectHandle::from(object.handle);
        bytes(self.esys.execute_with_sessions((PASSWORD, PASSWORD, None), |esys| {
            esys.certify(object, signer, extra, SignatureScheme::Null)
        }))
    }

    pub fn password<T>(&mut self, call: impl FnOnce(&mut Context) -> Result<T>) -> Result<T> {
        self.esys.execute_with_session(PASSWORD, call)
    }

    pub fn flush(&mut self, key: KeyHandle) {
        self.esys.flush_context(key.into()).expect("flushed");
    }

    fn ek(&mut self) -> KeyHandle {
        let template = create_ek_public_from_default_template(AsymmetricAlgorithm::Ecc, None).expect("template");
        self.primary(Hierarchy::Endorsement, template)
    }

    fn root(&mut self) -> KeyHandle {
        let symmetric = SymmetricDefinitionObject::AES_128_CFB;
        let template = ecc(0x0003_0472, EccCurve::NistP256, HashingAlgorithm::Sha256, symmetric, EccScheme::Null);
        self.primary(Hierarchy::Owner, template)
    }

    fn primary(&mut self, hierarchy: Hierarchy, template: Public) -> KeyHandle {
        let made = self.password(|esys| esys.create_primary(hierarchy, template, None, None, None, None));
        made.expect("a primary key").key_handle
    }

    /// Runs `call` with a session that satisfies the EK's policy.
    fn with_endorsement<T>(&mut self, call: impl FnOnce(&mut Context, Option<AuthSession>) -> Result<T>) -> Result<T> {
        let symmetric = SymmetricDefinition::AES_128_CFB;
        let session =
            self.esys.start_auth_session(None, None, None, SessionType::Policy, symmetric, HashingAlgorithm::Sha256)?;
        let handle = session.expect("a session");
        let policy = PolicySession::try_from(handle)?;
        self.password(|esys| {
            esys.policy_secret(
                policy,
                AuthHandle::Endorsement,
                Nonce::default(),
                Digest::default(),
                Nonce::default(),
                None,
            )
        })?;
        let result = call(&mut self.esys, session);
        self.esys.flush_context(SessionHandle::from(handle).into())?;
        result
    }
}

/// An attestation key template with odd attributes.
pub fn ak(attributes: u32) -> Public {
    signing(attributes, EccCurve::NistP256, HashingAlgorithm::Sha256)
}

/// An attestation key template with an odd curve or name algorithm.
pub fn signing(attributes: u32, curve: EccCurve, name: HashingAlgorithm) -> Public {
    let scheme = EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256));
    ecc(attributes, curve, name, SymmetricDefinitionObject::Null, scheme)
}

/// An RSA attestation key template.
pub fn rsa_ak(bits: RsaKeyBits) -> Public {
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Rsa)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(ObjectAttributes::from(AK))
        .with_rsa_parameters(PublicRsaParameters::new(
            SymmetricDefinitionObject::Null,
            RsaScheme::RsaSsa(HashScheme::new(HashingAlgorithm::Sha256)),
            bits,
            RsaExponent::default(),
        ))
        .with_rsa_unique_identifier(PublicKeyRsa::default())
        .build()
        .expect("template")
}

/// A selection of any bank.
pub fn selection(bank: HashingAlgorithm, indices: &[u8]) -> PcrSelectionList {
    let slots: Vec<_> = indices.iter().map(|index| (1u32 << index).try_into().expect("a PCR")).collect();
    PcrSelectionList::builder().with_selection(bank, &slots).build().expect("a selection")
}

/// Evidence with another attestation key.
pub fn with_ak(evidence: &Evidence, ak: &Odd) -> Evidence {
    Evidence { ak_public: ak.bytes(), ..evidence.clone() }
}

fn ecc(
    attributes: u32,
    curve: EccCurve,
    name: HashingAlgorithm,
    symmetric: SymmetricDefinitionObject,
    scheme: EccScheme,
) -> Public {
    ecc_with_point(attributes, curve, name, symmetric, scheme, EccPoint::default())
}

fn ecc_with_point(
    attributes: u32,
    curve: EccCurve,
    name: HashingAlgorithm,
    symmetric: SymmetricDefinitionObject,
    scheme: EccScheme,
    point: EccPoint,
) -> Public {
    let parameters = PublicEccParameters::new(symmetric, scheme, curve, KeyDerivationFunctionScheme::Null);
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(name)
        .with_object_attributes(ObjectAttributes::from(attributes))
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(point)
        .build()
        .expect("template")
}

fn software_key_pair(attributes: u32) -> (Sensitive, Public) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let scalar: EcPrivateKeyBin = pair.private_key().as_be_bytes().expect("the scalar");
    let point = pair.public_key().as_ref();
    let parameter = |bytes: &[u8]| EccParameter::try_from(bytes).expect("32 bytes");
    let public = ecc_with_point(
        attributes,
        EccCurve::NistP256,
        HashingAlgorithm::Sha256,
        SymmetricDefinitionObject::Null,
        EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)),
        EccPoint::new(parameter(&point[1..33]), parameter(&point[33..])),
    );
    let sensitive = Sensitive::Ecc {
        auth_value: Auth::default(),
        seed_value: Digest::default(),
        sensitive: parameter(scalar.as_ref()),
    };
    (sensitive, public)
}

fn bytes(attested: Result<(Attest, Signature)>) -> (Vec<u8>, Vec<u8>) {
    let (attest, signature) = attested.expect("attested");
    (attest.marshall().expect("TPMS_ATTEST"), signature.marshall().expect("TPMT_SIGNATURE"))
}
