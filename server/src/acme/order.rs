//! One order: what the CA wants to see is shown, and it issues a certificate for one name and a new key.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, KeyAuthorization, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use ironroot_api::tls::provider;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::doorman::Doorman;
use super::error::{AcmeError, for_people};

/// Longest an order may take, whatever the CA says meanwhile.
const DEADLINE: Duration = Duration::from_secs(180);
/// Longest the CA may take for each of its two steps: looking, and issuing.
pub(super) const POLL_DEADLINE: Duration = Duration::from_secs(60);
/// First pause between two questions, and how it grows.
const POLLS: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(POLL_DEADLINE);

/// Orders a certificate for `name`: its key and the chain, in PEM, as the CA has it; nothing of it has been judged.
pub(super) async fn order(account: &Account, name: &str, doorman: &Doorman) -> Result<Zeroizing<Vec<u8>>, AcmeError> {
    let ordered = tokio::time::timeout(DEADLINE, take_steps(account, name, doorman)).await;
    ordered.map_err(|_| AcmeError::Late(DEADLINE))?
}

async fn take_steps(account: &Account, name: &str, doorman: &Doorman) -> Result<Zeroizing<Vec<u8>>, AcmeError> {
    let names = [Identifier::Dns(name.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    if order.state().authorizations.len() != 1 {
        return Err(AcmeError::OtherNames);
    }
    prove(&mut order, name, doorman).await?;
    let key = KeyPair::generate()?;
    let mut request = CertificateParams::new(vec![name.to_owned()])?;
    request.distinguished_name = DistinguishedName::new();
    order.finalize_csr(request.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&POLLS).await?;
    let key = Zeroizing::new(key.serialize_pem());
    Ok(Zeroizing::new([key.as_bytes(), chain.as_bytes()].concat()))
}

/// Shows the CA that the name is ours, unless it knows.
async fn prove(order: &mut Order, name: &str, doorman: &Doorman) -> Result<(), AcmeError> {
    let mut authorizations = order.authorizations();
    let mut authorization = authorizations.next().await.ok_or(AcmeError::OtherNames)??;
    let asked = authorization.identifier();
    if asked.wildcard || *asked.identifier != Identifier::Dns(name.to_owned()) {
        return Err(AcmeError::OtherNames);
    }
    if authorization.status == AuthorizationStatus::Valid {
        return Ok(());
    }
    let mut challenge = authorization.challenge(ChallengeType::TlsAlpn01).ok_or(AcmeError::NoChallenge)?;
    let _answering =
        doorman.answer(name, answer(name, &challenge.key_authorization())?).ok_or(AcmeError::OtherNames)?;
    challenge.set_ready().await?;
    match order.poll_ready(&POLLS).await {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) => Err(AcmeError::NotSeen(why_not(order).await)),
        // The order's own error says that it failed, the challenge's why.
        Err(instant_acme::Error::Api(problem)) => match why_not(order).await {
            words if words.is_empty() => Err(instant_acme::Error::Api(problem).into()),
            words => Err(AcmeError::NotSeen(words)),
        },
        Err(error) => Err(error.into()),
    }
}

/// What the CA says of the challenge that failed; empty if it says nothing.
async fn why_not(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    let Some(Ok(mut authorization)) = authorizations.next().await else { return String::new() };
    let Ok(state) = authorization.refresh().await else { return String::new() };
    let problem = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
    problem.map(|problem| for_people(&problem.to_string())).unwrap_or_default()
}

/// The certificate that the CA wants to see: of the name alone, with a digest of what the account says. Source: RFC 8737 §3.
fn answer(name: &str, proof: &KeyAuthorization) -> Result<CertifiedKey, AcmeError> {
    let mut certificate = CertificateParams::new(vec![name.to_owned()])?;
    certificate.custom_extensions = vec![CustomExtension::new_acme_identifier(proof.digest().as_ref())];
    let key = KeyPair::generate()?;
    let signed = certificate.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Not looked at as another certificate is: its extension is critical, and nobody but a CA knows it.
    let key = provider().key_provider.load_private_key(key).map_err(AcmeError::Challenge)?;
    Ok(CertifiedKey::new(vec![signed.der().clone()], key))
}
