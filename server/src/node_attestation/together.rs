//! Several ways to attest as one: a device proves each of them, or nothing.
//!
//! The first says who the agent is; what the others prove is added to its selectors, with one that says that all were proven.
//!
//! A join token among them is somebody's word that the device may come in, once: it is spent with the first attestation. Later ones prove
//! the rest anew (what a chip has booted, for one), as long as the agent is there that the token let in. Evict it, and the next
//! attestation needs another token.

use ironroot_api::csr::Csr;
use ironroot_attest::Selector;
use ironroot_attest::node::together::{self, TogetherRefusal};
use ironroot_text::hex::hex;
use thiserror::Error;

use super::{
    AttestationError, AttestedNode, Attestor, Circumstances, Evidence as OfOne, JoinTokenRefusal, NodeAttestation,
    Progress, Proof, UnspentToken,
};

/// The type of the selector that says that all parts were proven; its value is their types, with a plus between.
const SELECTOR_TYPE: &str = "together";

/// The ways that are proven together.
#[derive(Debug)]
pub struct Together {
    name: String,
    parts: Vec<Attestor>,
}

/// What the first message says, part by part. Nothing is believed yet.
#[derive(Debug)]
pub struct Evidence<'a> {
    name: &'a str,
    pub(super) parts: Vec<OfOne<'a>>,
}

/// An attestation that waits for the answers to its parts' challenges.
#[derive(Debug)]
pub struct Challenge {
    name: String,
    parts: Vec<Waiting>,
}

#[derive(Debug)]
enum Waiting {
    Challenged(Box<super::Challenge>),
    Proven(Box<AttestedNode>),
    Enrolled(Enrolment),
}

/// What a join token is worth beside other proofs.
#[derive(Clone, Debug)]
pub enum Enrolment {
    /// It was good when it was shown; the change that stores the agent spends it.
    Now(UnspentToken),
    /// It was none, or is spent: good for an agent that was let in before.
    Before(JoinTokenRefusal),
}

impl Together {
    /// `first`: who says what the agent is called, no join token. `others`: at least one, each of another type.
    pub fn new(first: Attestor, others: Vec<Attestor>) -> Self {
        let parts: Vec<Attestor> = std::iter::once(first).chain(others).collect();
        Self { name: together::type_of(parts.iter().map(Attestor::kind)), parts }
    }

    /// The attestation type.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn takes_join_tokens(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Attestor::JoinToken))
    }

    pub(super) fn read<'a>(&'a self, payload: &'a [u8]) -> Result<Evidence<'a>, AttestationError> {
        let messages = together::split(payload, self.parts.len())?;
        let read = self.parts.iter().zip(messages).map(|(part, message)| part.read(message));
        Ok(Evidence { name: &self.name, parts: read.collect::<Result<_, _>>()? })
    }
}

impl NodeAttestation {
    /// Begins with each part; changes nothing.
    pub(super) async fn begin_together(
        &self,
        Evidence { name, parts }: Evidence<'_>,
        csr: Csr,
        at: &Circumstances<'_>,
    ) -> Result<Progress, AttestationError> {
        let (mut waiting, mut challenges) = (Vec::new(), Vec::new());
        for part in parts {
            let (part, challenge) = self.begin_part(part, csr.clone(), at).await?;
            waiting.push(part);
            challenges.push(challenge);
        }
        wait_together(&mut waiting);
        let challenge = Challenge { name: name.to_owned(), parts: waiting };
        Ok(Progress::Challenge(super::Challenge::Together(Box::new(challenge)), together::join(&challenges)))
    }

    async fn begin_part(
        &self,
        part: OfOne<'_>,
        csr: Csr,
        at: &Circumstances<'_>,
    ) -> Result<(Waiting, Vec<u8>), AttestationError> {
        if let OfOne::JoinToken(token) = part {
            let joined = self.join(token, csr, at.now_unix).await;
            return Ok((Waiting::Enrolled(Enrolment::of(joined)?), Vec::new()));
        }
        Ok(Waiting::at(self.begin_one(part, csr, at).await?))
    }

    /// Judges each part's answer. A part that has more to ask goes on, and those that are proven wait for it.
    pub(super) async fn judge_together(
        &self,
        Challenge { name, parts }: Challenge,
        response: &[u8],
        now_unix: i64,
    ) -> Result<Progress, AttestationError> {
        let answers = together::split(response, parts.len())?;
        let (mut waiting, mut challenges) = (Vec::new(), Vec::new());
        for (part, answer) in parts.into_iter().zip(answers) {
            let Waiting::Challenged(challenge) = part else {
                waiting.push(part);
                challenges.push(Vec::new());
                continue;
            };
            let (part, next) = Waiting::at(self.answer_one(*challenge, answer, now_unix).await?);
            waiting.push(part);
            challenges.push(next);
        }
        if challenges.iter().all(Vec::is_empty) {
            return Ok(Progress::Attested(Box::new(concluded(name, waiting)?)));
        }
        let challenge = Challenge { name, parts: waiting };
        Ok(Progress::Challenge(super::Challenge::Together(Box::new(challenge)), together::join(&challenges)))
    }
}

impl Waiting {
    /// Where a part stands, and what it is asked next.
    fn at(progress: Progress) -> (Self, Vec<u8>) {
        match progress {
            Progress::Attested(node) => (Self::Proven(node), Vec::new()),
            Progress::Challenge(challenge, bytes) => (Self::Challenged(Box::new(challenge)), bytes),
        }
    }

    fn challenge(&mut self) -> Option<&mut super::Challenge> {
        match self {
            Self::Challenged(challenge) => Some(challenge),
            Self::Proven(_) | Self::Enrolled(_) => None,
        }
    }
}

/// The node sends its answers to all parts at once: none is late before the slowest is.
fn wait_together(parts: &mut [Waiting]) {
    let mut challenges: Vec<_> = parts.iter_mut().filter_map(Waiting::challenge).collect();
    let longest = challenges.iter().map(|challenge| challenge.answer_seconds()).max().unwrap_or_default();
    challenges.iter_mut().for_each(|challenge| challenge.wait_for(longest));
}

/// One node of parts that have nothing more to ask.
fn concluded(name: String, parts: Vec<Waiting>) -> Result<AttestedNode, AttestationError> {
    let (expected, mut nodes, mut enrolment) = (parts.len(), Vec::new(), None);
    for part in parts {
        match part {
            Waiting::Proven(node) => nodes.push(*node),
            Waiting::Enrolled(token) => enrolment = Some(token),
            Waiting::Challenged(_) => return Err(TogetherRefusal { expected }.into()),
        }
    }
    united(name, nodes, enrolment)
}

impl Challenge {
    /// What several ways are not: one of several.
    pub(super) fn within_another(&self) -> AttestationError {
        TogetherRefusal { expected: self.parts.len() }.into()
    }
}

impl Enrolment {
    fn of(joined: Result<AttestedNode, AttestationError>) -> Result<Self, AttestationError> {
        match joined.map(|node| node.proof) {
            Ok(Proof::JoinToken(token)) => Ok(Self::Now(token)),
            Ok(_) => Ok(Self::Before(JoinTokenRefusal::Unknown)),
            Err(AttestationError::JoinToken(refusal)) => Ok(Self::Before(refusal)),
            Err(error) => Err(error),
        }
    }
}

/// Why parts do not belong to one device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the device shows two endorsement keys, {one} and {other}: both parts must name the same chip, and the same of its keys (ek in the agent's configuration)"
)]
pub struct TwoChips {
    /// SHA-256 of the one's SubjectPublicKeyInfo, hexadecimal.
    one: String,
    /// Of the other's.
    other: String,
}

/// Two parts that prove a chip prove the same one: a device is not half of another.
fn of_one_chip(proofs: &[Proof], next: &Proof) -> Result<(), TwoChips> {
    let known = proofs.iter().find_map(Proof::ek_sha256);
    match known.zip(next.ek_sha256()) {
        Some((one, other)) if one != other => Err(TwoChips { one: hex(&one), other: hex(&other) }),
        _ => Ok(()),
    }
}

/// One node that has proven all of it.
fn united(
    name: String,
    nodes: Vec<AttestedNode>,
    enrolment: Option<Enrolment>,
) -> Result<AttestedNode, AttestationError> {
    let parts = nodes.len() + usize::from(enrolment.is_some());
    let mut nodes = nodes.into_iter();
    let first = nodes.next().ok_or(TogetherRefusal { expected: parts })?;
    let (mut selectors, mut proofs, mut can_reattest) = (first.selectors, vec![first.proof], first.can_reattest);
    for node in nodes {
        of_one_chip(&proofs, &node.proof)?;
        selectors.extend(node.selectors.iter().cloned());
        proofs.push(node.proof);
        can_reattest &= node.can_reattest;
    }
    selectors.extend(Selector::new(SELECTOR_TYPE, &name));
    proofs.extend(enrolment.map(Proof::Enrolled));
    let (id, csr) = (first.id, first.csr);
    Ok(AttestedNode { id, attestation_type: name.into(), selectors, can_reattest, csr, proof: Proof::All(proofs) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chip(ek_sha256: [u8; 32]) -> Proof {
        Proof::Chip { ek_sha256, certificate_sha256: None, other_ids: Vec::new() }
    }

    #[test]
    fn what_two_chips_prove_is_not_of_one_device() {
        let certificate = Proof::Certificate { sha256: [1; 32], other_ids: Vec::new() };
        assert_eq!(of_one_chip(&[certificate.clone(), chip([2; 32])], &chip([2; 32])), Ok(()));
        assert_eq!(of_one_chip(&[chip([2; 32])], &certificate), Ok(()));
        let refusal = of_one_chip(&[certificate, chip([2; 32])], &chip([3; 32])).expect_err("another chip");
        assert_eq!((refusal.one, refusal.other), (hex(&[2; 32]), hex(&[3; 32])));
    }
}
