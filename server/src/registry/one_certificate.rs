//! A certificate is one agent's.
//!
//! SPIRE's ID of an agent with a certificate is a hash of all its bytes. Whoever has the certificate can write its signature in
//! another way and so have another ID: it would come back after a ban. What its authority has signed stays the same.

use ironroot_api::SpiffeId;

use crate::facts::agent::AgentRecord;
use crate::store::Transaction;

use super::RegistryError;

/// Shortest fingerprint in the name of an agent, characters: SHA-1, hexadecimal.
const FINGERPRINT_CHARS: usize = 40;

/// Refuses `agent`, which has just proven its certificate, if there is an agent of another ID that has the same one: what it was called
/// before ([`former`]) is gone by then. `other_ids`: what it would be called if the signature were written in another way; an agent that
/// was taken over from SPIRE is known by its ID alone.
pub(super) fn refuse_under_another_id(
    tx: &Transaction<'_>,
    agent: &AgentRecord,
    other_ids: &[SpiffeId],
) -> Result<(), RegistryError> {
    let Some(certificate) = &agent.certificate_sha256 else { return Ok(()) };
    refuse(agent, tx.agent_with_certificate(certificate)?)?;
    other_ids.iter().try_for_each(|id| refuse(agent, tx.agent(id)?.map(|(_, known)| known)))
}

/// What `agent` was called before, if it was.
pub(super) fn former(
    tx: &Transaction<'_>,
    agent: &AgentRecord,
    other_ids: &[&SpiffeId],
) -> Result<Option<AgentRecord>, RegistryError> {
    let Some(certificate) = &agent.certificate_sha256 else { return Ok(None) };
    Ok(tx.agent_with_certificate(certificate)?.filter(|known| is_former(known, agent, other_ids)))
}

/// Whether `known` is `agent` under the name that another `agent_path_template` gave it: it is the same device, proven in the same way, and
/// not what the certificate is called when its signature is written in another way.
pub(super) fn is_former(known: &AgentRecord, agent: &AgentRecord, other_ids: &[&SpiffeId]) -> bool {
    let is_same = known.certificate_sha256.is_some()
        && known.certificate_sha256 == agent.certificate_sha256
        && known.ek_sha256 == agent.ek_sha256
        && known.named_by() == agent.named_by();
    let (old, new) = (&known.spiffe_id, &agent.spiffe_id);
    is_same && !known.banned && old != new && !other_ids.contains(&old) && !differ_in_fingerprints_alone(old, new)
}

/// Whether it is one template that gave both IDs, of one certificate that its authority has signed twice: that other form nobody can foretell.
fn differ_in_fingerprints_alone(one: &SpiffeId, other: &SpiffeId) -> bool {
    let [one, other] = [one, other].map(|id| id.path().split('/').collect::<Vec<_>>());
    let is_fingerprint = |part: &str, of: &str| part.len() == of.len() && part.len() >= FINGERPRINT_CHARS;
    one.len() == other.len() && one.iter().zip(&other).all(|(part, of)| part == of || is_fingerprint(part, of))
}

fn refuse(agent: &AgentRecord, known: Option<AgentRecord>) -> Result<(), RegistryError> {
    match known {
        Some(known) if known.spiffe_id == agent.spiffe_id => Ok(()),
        Some(known) if known.banned => Err(RegistryError::AgentBanned),
        Some(known) => Err(RegistryError::CertificateTaken { agent: known.spiffe_id }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::TrustDomain;
    use ironroot_api::unix_socket::PeerCredentials;

    use super::*;
    use crate::node_attestation::Proof;
    use crate::registry::Registry;
    use crate::rights::Administrator;
    use crate::store::Store;

    #[tokio::test]
    async fn of_one_certificate_one_agent_is_kept_and_its_ban_holds_for_each_id_until_it_is_evicted() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let trust_domain = TrustDomain::new("td").expect("legal");
        let store = Store::open(&directory.path().join("datastore.sqlite3"), &trust_domain).expect("opens");
        let registry = Registry::load(store.clone()).await.expect("loads");
        let by = Administrator::local(PeerCredentials { pid: 1, uid: 0, gid: 0 });
        let agent = |name, of| AgentRecord { certificate_sha256: Some([of; 32]), ..AgentRecord::example(name) };
        let [one, twin, other] = [agent("one", 1), agent("twin", 1), agent("other", 2)];
        let [one_id, twin_id] = [&one, &twin].map(|agent| agent.spiffe_id.clone());
        let attest = |agent: &AgentRecord| {
            let sha256 = agent.certificate_sha256.expect("has one");
            let twins = [&one_id, &twin_id].into_iter().filter(|id| sha256 == [1; 32] && **id != agent.spiffe_id);
            let other_ids = twins.cloned().collect();
            registry.put_attested(agent.clone(), Proof::Certificate { sha256, other_ids }, 0)
        };
        for agent in [&one, &one, &other] {
            attest(agent).await.expect("attests, and again");
        }
        let refused = attest(&twin).await;
        assert!(matches!(&refused, Err(RegistryError::CertificateTaken { agent }) if *agent == one.spiffe_id));
        assert!(registry.ban_agent(&by, &one.spiffe_id).await.expect("bans").is_some());
        for agent in [&one, &twin] {
            assert!(matches!(attest(agent).await, Err(RegistryError::AgentBanned)));
        }
        assert_eq!(registry.agent_with_certificate(&[1; 32]).expect("kept").spiffe_id, one.spiffe_id);
        // What memory answers, another process finds in the file.
        let anew = Registry::load(store).await.expect("loads");
        assert!(anew.agent_with_certificate(&[1; 32]).expect("kept").banned);
        assert!(registry.delete_agent(&by, &one.spiffe_id).await.expect("evicts"));
        assert_eq!(registry.agent_with_certificate(&[1; 32]), None);
        attest(&twin).await.expect("the ban has gone with its agent");
        assert_eq!(registry.agent_with_certificate(&[1; 32]).expect("kept").spiffe_id, twin.spiffe_id);
        assert_eq!(registry.agent_with_certificate(&[2; 32]).expect("kept").spiffe_id, other.spiffe_id);
    }

    /// SPIRE's database does not say which certificate an agent has.
    #[tokio::test]
    async fn an_agent_that_was_taken_over_is_found_by_what_its_certificate_is_called_when_it_is_written_in_another_way()
    {
        let directory = tempfile::tempdir().expect("temporary directory");
        let trust_domain = TrustDomain::new("td").expect("legal");
        let store = Store::open(&directory.path().join("datastore.sqlite3"), &trust_domain).expect("opens");
        let banned = AgentRecord { banned: true, serial: String::new(), ..AgentRecord::example("banned") };
        let good = AgentRecord::example("good");
        let taken_over = [banned.clone(), good.clone()];
        let put = move |tx: &Transaction<'_>| taken_over.iter().try_for_each(|agent| tx.put_agent(agent).map(drop));
        store.change::<_, crate::store::StoreError>(put).await.expect("taken over");
        let registry = Registry::load(store).await.expect("loads");
        let attest = |other: &AgentRecord, of| {
            let twin = AgentRecord { certificate_sha256: Some([of; 32]), ..AgentRecord::example("twin") };
            let other_ids = vec![AgentRecord::example("nobody").spiffe_id, other.spiffe_id.clone()];
            registry.put_attested(twin, Proof::Certificate { sha256: [of; 32], other_ids }, 0)
        };
        assert!(matches!(attest(&banned, 1).await, Err(RegistryError::AgentBanned)));
        let refused = attest(&good, 2).await;
        assert!(matches!(&refused, Err(RegistryError::CertificateTaken { agent }) if *agent == good.spiffe_id));
        attest(&AgentRecord::example("gone"), 3).await.expect("nobody has it");
    }

    #[tokio::test]
    async fn under_a_new_template_a_device_has_its_new_name_alone_unless_it_is_banned_or_another_one() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let trust_domain = TrustDomain::new("td").expect("legal");
        let store = Store::open(&directory.path().join("datastore.sqlite3"), &trust_domain).expect("opens");
        let registry = Registry::load(store.clone()).await.expect("loads");
        let by = Administrator::local(PeerCredentials { pid: 1, uid: 0, gid: 0 });
        let agent = |name: &str| AgentRecord { certificate_sha256: Some([1; 32]), ..AgentRecord::example(name) };
        let certificate = || Proof::Certificate { sha256: [1; 32], other_ids: Vec::new() };
        let attest = |agent: &AgentRecord| registry.put_attested(agent.clone(), certificate(), 0);
        let [old, new, newer] = ["old", "new", "newer"].map(agent);
        assert_eq!(attest(&old).await.expect("attests"), None);
        // A TPM that is proven too is another device's.
        let of_another_chip = AgentRecord { ek_sha256: Some([7; 32]), ..new.clone() };
        let by_another_plugin = AgentRecord { attestation_type: "other".to_owned(), ..new.clone() };
        for stranger in [&of_another_chip, &by_another_plugin] {
            let refused = attest(stranger).await;
            assert!(matches!(&refused, Err(RegistryError::CertificateTaken { agent }) if *agent == old.spiffe_id));
        }
        // Nor is the other form of a certificate that was signed twice.
        let forms = ["a", "b"].map(|digit| agent(&format!("x509pop/{}", digit.repeat(FINGERPRINT_CHARS))));
        assert!(!is_former(&forms[0], &forms[1], &[]) && is_former(&forms[0], &new, &[]));
        // What is refused for another reason has not lost its old name.
        let taken_over = AgentRecord::example("taken-over");
        let put = {
            let taken_over = taken_over.clone();
            move |tx: &Transaction<'_>| tx.put_agent(&taken_over).map(drop)
        };
        store.change::<_, crate::store::StoreError>(put).await.expect("put");
        let other_ids = vec![taken_over.spiffe_id.clone()];
        let refused = registry.put_attested(new.clone(), Proof::Certificate { sha256: [1; 32], other_ids }, 0).await;
        assert!(matches!(&refused, Err(RegistryError::CertificateTaken { agent }) if *agent == taken_over.spiffe_id));
        for registry in [&registry, &Registry::load(store.clone()).await.expect("loads")] {
            assert!(registry.agent(&old.spiffe_id).is_some() && registry.agent(&new.spiffe_id).is_none());
        }
        assert_eq!(attest(&new).await.expect("the same device"), Some(old.spiffe_id.clone()));
        assert_eq!(attest(&new).await.expect("and again"), None);
        for registry in [&registry, &Registry::load(store).await.expect("loads")] {
            assert!(registry.agent(&old.spiffe_id).is_none(), "it is one agent");
            assert_eq!(registry.agent_with_certificate(&[1; 32]).expect("kept").spiffe_id, new.spiffe_id);
        }
        registry.ban_agent(&by, &new.spiffe_id).await.expect("bans");
        assert!(matches!(attest(&newer).await, Err(RegistryError::AgentBanned)));
        assert!(
            registry.agent(&new.spiffe_id).is_some_and(|known| known.banned)
                && registry.agent(&newer.spiffe_id).is_none()
        );
    }

    /// An `agent_path_template` can give any name.
    #[tokio::test]
    async fn an_agent_does_not_lose_its_name_to_one_that_attests_in_another_way() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let trust_domain = TrustDomain::new("td").expect("legal");
        let store = Store::open(&directory.path().join("datastore.sqlite3"), &trust_domain).expect("opens");
        let registry = Registry::load(store).await.expect("loads");
        let agent = |kind: &str| AgentRecord { attestation_type: kind.to_owned(), ..AgentRecord::example("one") };
        let proof = |of| Proof::Certificate { sha256: [of; 32], other_ids: Vec::new() };
        let attest = |agent, of| registry.put_attested(agent, proof(of), 0);
        attest(agent("x509pop"), 1).await.expect("attests");
        let refused = attest(agent("other"), 2).await.expect_err("it is there");
        assert!(refused.to_string().contains("attests by x509pop: evict it"), "{refused}");
        attest(agent("x509pop"), 1).await.expect("and again");
    }
}
