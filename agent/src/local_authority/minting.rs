//! One SVID, signed. Blocks: the key may be in a chip or a token.

use ironroot_api::SpiffeId;
use ironroot_api::certificate::Certificate;
use ironroot_api::issuing::{Serial, Signer, SubjectKey, SvidNames, assemble, svid};
use tokio::runtime::Handle;

use super::{AuthorityError, Issued, Mandate};
use crate::agent_key::{AgentKey, SoftwareKey, WorkloadKeyKind};
use crate::server_answers::{ClaimedIntermediate, Intermediate};

/// What is to be signed: all of it is an entry's.
#[derive(Clone, Debug)]
pub struct ToMint {
    /// The server's ID of the entry.
    pub entry_id: String,
    /// The ID in the certificate.
    pub spiffe_id: SpiffeId,
    /// Its DNS names.
    pub dns_names: Vec<String>,
    /// How long it is to last, seconds.
    pub ttl_seconds: i64,
}

/// An SVID that was signed, and noted. Nobody has looked at it yet.
#[derive(Debug)]
pub struct Minted {
    /// Leaf first, DER, without the root.
    pub chain: Vec<Vec<u8>>,
    /// The leaf's.
    pub key: SoftwareKey,
    /// As it was noted.
    pub issued: Issued,
}

/// Signs one SVID for a key of that kind that is made for it.
pub(super) fn mint(
    (intermediate, key, runtime): (&Intermediate, &AgentKey, &Handle),
    mandate: &Mandate,
    (wanted, kind): (ToMint, WorkloadKeyKind),
) -> Result<Minted, AuthorityError> {
    let (own_key, serial) = (SoftwareKey::generate_of(kind)?, Serial::random());
    let span = mandate.span(wanted.ttl_seconds);
    let subject = SubjectKey::new(own_key.spki_der(), own_key.public_key());
    let names = SvidNames { id: &wanted.spiffe_id, dns_names: &wanted.dns_names, has_unique_id: false };
    let tbs = svid(names, subject, intermediate.signer(), serial, span)?;
    let leaf = sign(&tbs, intermediate.signer(), key, runtime)?;
    let issued = Issued {
        entry_id: wanted.entry_id,
        spiffe_id: wanted.spiffe_id.to_string(),
        serial: serial.decimal(),
        issued_at: mandate.now(),
        expires_at: span.1,
        jwt: None,
    };
    let chain = std::iter::once(leaf).chain(intermediate.above()).collect();
    Ok(Minted { chain, key: own_key, issued })
}

/// The SVID that proves a CA: for `id`, and for a key that is gone when this returns. DER.
pub(super) fn prove(
    claimed: &ClaimedIntermediate,
    id: &SpiffeId,
    key: &AgentKey,
    runtime: &Handle,
) -> Result<Vec<u8>, AuthorityError> {
    let (gone, span) = (SoftwareKey::generate()?, claimed.span());
    let subject = SubjectKey::new(gone.spki_der(), gone.public_key());
    let names = SvidNames { id, dns_names: &[], has_unique_id: false };
    let tbs = svid(names, subject, claimed.signer(), Serial::random(), (span.not_before, span.not_after))?;
    sign(&tbs, claimed.signer(), key, runtime)
}

fn sign(tbs: &[u8], signer: Signer<'_>, key: &AgentKey, runtime: &Handle) -> Result<Vec<u8>, AuthorityError> {
    let signature = key.sign_blocking(runtime, tbs)?;
    let der = assemble(tbs, signer.algorithm, &signature)?;
    Certificate::parse(&der).map_err(|error| AuthorityError::Answer(error.into()))?;
    Ok(der)
}
