//! A certificate authority in the test's own process: real store, real token, time as an argument.

use std::path::Path;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaKeyPair, KeyPair,
    RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ironroot_api::csr::{Csr, Spki};
use ironroot_api::pb::types;
use ironroot_api::unix_socket::PeerCredentials;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_hsm::{KeyKind, KeyName, Token, TokenConfig, TokenKey};
use ironroot_server::ca::{
    Audience, CaError, CaPolicy, CaSubject, CertificateAuthority, DiskAuthority, IssuedSvid, IssuedToken, Journal,
    JwtPolicy, JwtSubject, Pace, Place, Rotation, ServerName, SlotName, TokenAuthority, TrustBundle, Upstream,
};
use ironroot_server::clock::{ClockSource, Reading};
use ironroot_server::keys::KeyManagers;
use ironroot_server::node_attestation::{AttestedNode, Attestor, Circumstances, JOIN_TOKEN, NodeAttestation, Progress};
use ironroot_server::registry::{AuthorizedEntry, Registry};
use ironroot_server::rights::{Administrator, OwnAuthorities, Provenance};
use ironroot_server::store::Store;
use rcgen::CertificateParams;
use rustls_pki_types::{CertificateDer, UnixTime};
use tempfile::TempDir;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::jwt;
use crate::softhsm::SoftHsm;
use crate::upstream_files::UpstreamFiles;

/// The trust domain of these CAs.
pub const TRUST_DOMAIN: &str = "example.org";
/// A moment to begin at, UNIX seconds (2027-01-15).
pub const NOW: i64 = 1_800_000_000;

/// Who certifies the CAs.
#[derive(Clone)]
enum LabUpstream {
    Disk(DiskAuthority),
    Token(Box<TokenAuthority>),
}

/// A store in its own directory, and a token, for CAs that are started again and again.
pub struct AuthorityLab {
    /// SoftHSM, with the sessions that the CA signs with.
    pub token: Token,
    /// The data store that holds the CA's journal.
    pub store: Store,
    ca_ttl_seconds: i64,
    root_ttl_seconds: Option<i64>,
    server: ServerName,
    given_keys: Vec<KeyName>,
    jwt: Option<JwtPolicy>,
    keys: Option<KeyManagers>,
    key_kind: KeyKind,
    upstream: Option<LabUpstream>,
    accepts_older_journal: bool,
    _directory: Option<TempDir>,
}

impl AuthorityLab {
    /// A new store beside the token of `hsm`, which must be this process's.
    pub fn new(hsm: &SoftHsm, ca_ttl_seconds: i64) -> Self {
        Self::with_token(hsm.token_config(2), ca_ttl_seconds)
    }

    /// A new store beside this token.
    pub fn with_token(token: TokenConfig, ca_ttl_seconds: i64) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = directory.path().join("datastore.sqlite3");
        Self { _directory: Some(directory), ..Self::at(token, &store, ca_ttl_seconds) }
    }

    /// The store in this file, which outlives us, beside this token.
    pub fn at(token: TokenConfig, store: &Path, ca_ttl_seconds: i64) -> Self {
        let trust_domain = TrustDomain::new(TRUST_DOMAIN).expect("a constant");
        let store = Store::open(store, &trust_domain).expect("a store of our own");
        let token = Token::open(token).expect("a token of our own");
        let (server, given_keys) = (ServerName::default(), Vec::new());
        Self {
            token,
            store,
            ca_ttl_seconds,
            root_ttl_seconds: None,
            server,
            given_keys,
            jwt: None,
            keys: None,
            key_kind: KeyKind::EcP256,
            upstream: None,
            accepts_older_journal: false,
            _directory: None,
        }
    }

    /// The same with a root above the CAs.
    pub fn rooted(self, root_ttl_seconds: i64) -> Self {
        Self { root_ttl_seconds: Some(root_ttl_seconds), ..self }
    }

    /// The same, whose CAs these files certify.
    pub fn below(self, files: &UpstreamFiles) -> Self {
        Self { upstream: Some(LabUpstream::Disk(files.authority())), ..self }
    }

    /// The same, whose CAs a root on a token of its own certifies.
    pub fn below_a_token(self, root: TokenAuthority) -> Self {
        Self { upstream: Some(LabUpstream::Token(Box::new(root))), ..self }
    }

    /// The same, whose CAs nobody above certifies any more.
    pub fn alone(self) -> Self {
        Self { upstream: None, ..self }
    }

    /// The same without a root of its own, from the next start on.
    pub fn unrooted(self) -> Self {
        Self { root_ttl_seconds: None, ..self }
    }

    /// The same, whose CA signs JWT-SVIDs too, for five minutes.
    pub fn with_jwt(self) -> Self {
        Self { jwt: Some(JwtPolicy { issuer: None, svid_ttl_seconds: 300, key_kind: KeyKind::EcP256 }), ..self }
    }

    /// The same, whose next keys of JWT-SVIDs are of this kind.
    pub fn with_jwt_keys(self, key_kind: KeyKind) -> Self {
        let jwt = self.jwt.map(|jwt| JwtPolicy { key_kind, ..jwt });
        Self { jwt, ..self }
    }

    /// The same, whose CA signs no JWT-SVIDs.
    pub fn without_jwt(self) -> Self {
        Self { jwt: None, ..self }
    }

    /// The server of `other`, which has founded its CA, with its journal in this store: as where the rows of two stores were brought
    /// together by hand.
    pub async fn take_in(&self, other: &Self) -> Self {
        let moved = Self { store: self.store.clone(), ..other.as_server(other.server.clone()) };
        moved.put(&other.journal().await).await;
        moved
    }

    /// The same under this name, on the same token and in the same store.
    pub fn named(&self, server: &str) -> Self {
        self.as_server(server.parse().expect("a legal name"))
    }

    /// The same without a name.
    pub fn unnamed(&self) -> Self {
        self.as_server(ServerName::default())
    }

    fn as_server(&self, server: ServerName) -> Self {
        let (token, store, given_keys) = (self.token.clone(), self.store.clone(), self.given_keys.clone());
        let (ca_ttl_seconds, root_ttl_seconds) = (self.ca_ttl_seconds, self.root_ttl_seconds);
        let (jwt, keys, key_kind, upstream) =
            (self.jwt.clone(), self.keys.clone(), self.key_kind, self.upstream.clone());
        Self {
            token,
            store,
            ca_ttl_seconds,
            root_ttl_seconds,
            server,
            given_keys,
            jwt,
            keys,
            key_kind,
            upstream,
            accepts_older_journal: self.accepts_older_journal,
            _directory: None,
        }
    }

    /// The same lab, whose server has this `server_name`.
    pub fn renamed(self, server: &str) -> Self {
        Self { server: server.parse().expect("a legal name"), ..self }
    }

    /// The same with its keys there, and not in the token.
    pub fn keeping_keys_in(self, keys: impl Into<KeyManagers>) -> Self {
        Self { keys: Some(keys.into()), ..self }
    }

    /// The same, whose next root and CA have keys of this kind.
    pub fn with_ca_keys(self, key_kind: KeyKind) -> Self {
        Self { key_kind, ..self }
    }

    /// The same with keys that an administrator has made.
    pub fn given(self, given_keys: Vec<KeyName>) -> Self {
        Self { given_keys, ..self }
    }

    /// The same, whose journal counts although it is older than the token: an operator has said so.
    pub fn accepting(self) -> Self {
        Self { accepts_older_journal: true, ..self }
    }

    /// Starts a CA as a server that starts at `now_unix` does, on a machine that was on all the time and whose clock is right.
    pub async fn start(&self, now_unix: i64) -> Result<CertificateAuthority, CaError> {
        self.start_by("lab", now_unix, now_unix).await
    }

    /// The same, in the boot `boot_id`, `boot_seconds` after it, when the wall clock says `now_unix`. Both stand still.
    pub async fn start_by(
        &self,
        boot_id: &str,
        boot_seconds: i64,
        now_unix: i64,
    ) -> Result<CertificateAuthority, CaError> {
        let reading = Reading { wall_unix: now_unix, boot_seconds };
        self.start_on(ClockSource::new(boot_id, move || reading)).await
    }

    /// The same, by these clocks.
    pub async fn start_on(&self, clocks: ClockSource) -> Result<CertificateAuthority, CaError> {
        self.start_rotating(clocks).await.map(|(ca, _)| ca)
    }

    /// The same, and what renews it.
    pub async fn start_rotating(&self, clocks: ClockSource) -> Result<(CertificateAuthority, Rotation), CaError> {
        let keys = self.keys.clone().unwrap_or_else(|| self.token.clone().into());
        let upstream = self.upstream.clone().map(|upstream| match upstream {
            LabUpstream::Disk(files) => Upstream::Disk(files),
            LabUpstream::Token(root) => Upstream::Token(*root),
        });
        CertificateAuthority::start(keys, self.store.clone(), self.policy(), upstream, clocks).await
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> TrustDomain {
        self.store.trust_domain().clone()
    }

    /// What the key that the CA makes for a slot is called.
    pub fn key_name(&self, slot: SlotName) -> KeyName {
        Place::ca(slot).key_name(self.store.trust_domain(), &self.server)
    }

    /// What the key that it makes for a root is called.
    pub fn root_key_name(&self, slot: SlotName) -> KeyName {
        Place::root(slot).key_name(self.store.trust_domain(), &self.server)
    }

    /// What the key that it makes for JWT-SVIDs is called.
    pub fn jwt_key_name(&self, slot: SlotName) -> KeyName {
        Place::jwt(slot).key_name(self.store.trust_domain(), &self.server)
    }

    /// Makes the key that the CA would make in this place, as it would be after a crash.
    pub async fn make_key(&self, name: &KeyName) -> TokenKey {
        let id = name.id().expect("keys that the CA makes have one");
        self.token.generate_p256(id, name.label().unwrap_or_default()).await.expect("a token of our own")
    }

    /// The journal of a CA that does not exist yet.
    pub fn founding(&self) -> Journal {
        Journal::new(self.store.trust_domain(), &self.server)
    }

    /// What is renewed, and when.
    pub fn paces(&self) -> Vec<Pace> {
        self.policy().paces()
    }

    /// Whether the store has a journal of this server.
    pub async fn has_journal(&self) -> bool {
        self.stored_journal().await.is_some()
    }

    /// The journal's bytes.
    pub async fn stored_journal(&self) -> Option<Vec<u8>> {
        self.store.ca_journal(self.server.as_str()).await.expect("a store of our own")
    }

    /// The journal as the store has it.
    pub async fn journal(&self) -> Journal {
        let bytes = self.stored_journal().await.expect("a CA was founded");
        Journal::from_bytes(&bytes, self.store.trust_domain(), &self.server).expect("what the CA wrote")
    }

    /// Makes the store say something else, as if a server had stopped there.
    pub async fn put(&self, journal: &Journal) {
        self.put_bytes(journal.to_bytes()).await;
    }

    /// The same with what may be no journal.
    pub async fn put_bytes(&self, journal: Vec<u8>) {
        self.store.put_ca_journal(self.server.as_str(), journal).await.expect("a store of our own");
    }

    /// Takes the CA's keys out of the token, for the next store beside it.
    pub async fn forget_keys(&self) {
        for place in Place::all() {
            let name = place.key_name(self.store.trust_domain(), &self.server);
            self.token.destroy(&name).await.expect("a token of our own");
        }
    }

    fn policy(&self) -> CaPolicy {
        let subject = CaSubject { country: vec!["US".into()], organization: vec!["SPIFFE".into()], common_name: None };
        let (agent_ttl_seconds, x509_svid_ttl_seconds) = (3600, 3600);
        let (trust_domain, ca_ttl_seconds) = (self.trust_domain(), self.ca_ttl_seconds);
        let root_ttl_seconds = self.root_ttl_seconds;
        let (server, given_keys) = (self.server.clone(), self.given_keys.clone());
        CaPolicy {
            accepts_older_journal: self.accepts_older_journal,
            trust_domain,
            server,
            given_keys,
            key_kind: self.key_kind,
            subject,
            ca_ttl_seconds,
            root_ttl_seconds,
            agent_ttl_seconds,
            x509_svid_ttl_seconds,
            unique_ids: false,
            jwt: self.jwt.clone(),
            wit: None,
        }
    }
}

/// A fresh key to certify.
pub fn spki() -> Spki {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    let der = key.public_key().as_der().expect("DER of a key");
    Spki::parse(der.as_ref()).expect("a good key")
}

/// What a peer's TLS library does with an SVID: the path to the bundle, for both usages, at `now_unix`.
pub fn verify(svid: &IssuedSvid, bundle: &TrustBundle, now_unix: i64) -> Result<(), webpki::Error> {
    let authorities: Vec<_> = bundle.authorities.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let anchors: Vec<_> = authorities.iter().map(|der| anchor_from_trusted_cert(der).expect("an authority")).collect();
    let chain: Vec<_> = svid.chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let (leaf, intermediates) = chain.split_first().expect("a certificate");
    let leaf = EndEntityCert::try_from(leaf)?;
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_unix.unsigned_abs()));
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, intermediates, time, usage, None, None)?;
    }
    Ok(())
}

/// A JWT-SVID for `/web`, to be shown to `audience`, by the CA at `now_unix`.
pub async fn sign_jwt(ca: &CertificateAuthority, now_unix: i64) -> Result<IssuedToken, CaError> {
    let trust_domain = TrustDomain::new(TRUST_DOMAIN).expect("a constant");
    let id = SpiffeId::parse("spiffe://example.org/web").expect("a constant");
    let subject = JwtSubject::minted(&administrator(), id, &trust_domain, 0).expect("a workload's");
    let audience = Audience::parse(vec!["audience".to_owned()]).expect("one");
    ca.sign_jwt_svid(&subject, &audience, now_unix).await
}

/// The ID of the key that has signed a token, if the bundle has that key and it has.
pub fn verify_jwt(token: &str, bundle: &TrustBundle) -> Result<String, &'static str> {
    let (header, _) = jwt::parts(token);
    let key_id = header["kid"].as_str().ok_or("no key ID")?;
    let named = bundle.jwt_authorities.iter().find(|authority| authority.key_id == key_id);
    let spki = Spki::parse(&named.ok_or("no key of this ID")?.spki_der).map_err(|_| "no key of ours")?;
    let algorithm: &'static dyn VerificationAlgorithm = match header["alg"].as_str() {
        Some("ES256") => &ECDSA_P256_SHA256_FIXED,
        Some("ES384") => &ECDSA_P384_SHA384_FIXED,
        Some("RS256") => &RSA_PKCS1_2048_8192_SHA256,
        _ => return Err("no algorithm of ours"),
    };
    let key = UnparsedPublicKey::new(algorithm, spki.key());
    let (input, signature) = token.rsplit_once('.').ok_or("no signature")?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "no base64url")?;
    key.verify(input.as_bytes(), &signature).map_err(|_| "the signature is wrong")?;
    Ok(key_id.to_owned())
}

/// The CA signs something that its own bundle verifies.
pub async fn assert_signs(ca: &CertificateAuthority, now_unix: i64) {
    let svid = ca.sign_server_svid(&spki(), now_unix).await.expect("it signs");
    let bundle = ca.bundle().borrow().clone();
    verify(&svid, &bundle, now_unix).expect("it verifies");
}

fn wire_id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".to_owned(), path: path.to_owned() })
}

/// An administrator, as whoever opens the admin socket is.
pub fn administrator() -> Administrator {
    Administrator::local(PeerCredentials { pid: 1, uid: 0, gid: 0 })
}

/// A node that has attested with a fresh join token `lab`.
pub async fn joined(lab: &AuthorityLab, registry: &Registry) -> AttestedNode {
    registry.create_join_token(&administrator(), "lab", NOW + 60, None, NOW).await.expect("a registry of our own");
    let (store, devices) = (lab.store.clone(), registry.devices().clone());
    let attestation = NodeAttestation::new(lab.trust_domain(), store, devices, vec![Attestor::JoinToken]);
    let request = CertificateParams::default().serialize_request(&rcgen::KeyPair::generate().expect("a key"));
    let csr = Csr::parse(request.expect("a request").der()).expect("an honest request");
    let evidence = attestation.read(JOIN_TOKEN, b"lab").expect("a token");
    let provenance = Provenance { own: &OwnAuthorities::default(), is_through_banned_agent: &|_| false };
    let at = Circumstances { now_unix: NOW, address: None, own_authorities: &[], provenance };
    match attestation.begin(evidence, csr, &at).await {
        Ok(Progress::Attested(node)) => *node,
        other => panic!("{other:?}"),
    }
}

/// An agent that asks for SVIDs.
pub fn asking() -> SpiffeId {
    format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/asking").parse().expect("legal")
}

/// An entry as the registry hands it out to the agent it belongs to.
pub async fn authorized_entry(lab: &AuthorityLab, path: &str, ttl: i32, dns_names: &[&str]) -> AuthorizedEntry {
    let registry = Registry::load(lab.store.clone()).await.expect("a registry of our own");
    let node = joined(lab, &registry).await;
    registry.attest_agent(&node, ("1", NOW + 3600), NOW).await.expect("a registry of our own");
    let agent = node.id();
    let entry = types::Entry {
        spiffe_id: wire_id(path),
        parent_id: wire_id(agent.path()),
        selectors: vec![types::Selector { r#type: "unix".to_owned(), value: "uid:1".to_owned() }],
        x509_svid_ttl: ttl,
        dns_names: dns_names.iter().map(|d| (*d).to_owned()).collect(),
        ..types::Entry::default()
    };
    registry.create_entry(&administrator(), &entry, NOW).await.answer().await.expect("a registry of our own");
    let view = registry.authorized_entries(agent, NOW);
    let id = view
        .iter()
        .map(|e| e.entry())
        .find(|e| e.spiffe_id().path() == path)
        .expect("a registry of our own")
        .id()
        .to_owned();
    registry.authorize_entry(agent, &id, NOW).expect("a registry of our own")
}
