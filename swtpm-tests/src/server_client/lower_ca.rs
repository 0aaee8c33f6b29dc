//! A CA below the server, in the hands of somebody who signs with it whatever comes to mind.

use std::time::{SystemTime, UNIX_EPOCH};

use der::Encode;
use ironroot_api::SpiffeId;
use ironroot_api::certificate::Certificate;
use ironroot_api::issuing::{self, Serial, Signer, SubjectKey, SvidNames};
use ironroot_api::pb::svid::NewDownstreamX509caRequest;
use ironroot_api::pb::svid::svid_client::SvidClient;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use rustls_pki_types::CertificateDer;
use tonic::transport::Channel;

use super::{Credentials, csr, key};

/// Its certificate, what is above it, and its key.
pub struct LowerCa {
    chain: Vec<Certificate>,
    key: KeyPair,
}

impl LowerCa {
    /// The CA that the server gives to whoever is on `channel`.
    pub async fn ask(channel: &Channel) -> Self {
        let key = key();
        let request = NewDownstreamX509caRequest { csr: csr(&key, &[]).into(), preferred_ttl: 3600 };
        let answer = SvidClient::new(channel.clone()).new_downstream_x509ca(request).await.expect("a CA").into_inner();
        let chain = answer.ca_cert_chain.iter().map(|der| Certificate::parse(der).expect("DER")).collect();
        Self { chain, key }
    }

    /// An X509-SVID with this ID, good for a minute, and with the serial number `like` if there is one.
    pub fn sign(&self, id: &SpiffeId, like: Option<&Certificate>) -> Credentials {
        let leaf_key = key();
        let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().cast_signed();
        let serial = like.map_or_else(Serial::random, |like| {
            Serial::from(like.serial_decimal().parse::<u128>().expect("of this server's making"))
        });
        let name = self.chain[0].inner().tbs_certificate().subject().to_der().expect("re-encodes");
        let key_id = self.chain[0].subject_key_id().expect("a CA's");
        let algorithm = issuing::ecdsa_with_sha256();
        let signer = Signer { name: &name, key_id: &key_id, algorithm };
        let spki = leaf_key.subject_public_key_info();
        let point = &spki[spki.len() - 65..];
        let names = SvidNames { id, dns_names: &[], has_unique_id: false };
        let tbs = issuing::svid(names, SubjectKey::new(&spki, point), signer, serial, (now_unix - 10, now_unix + 60));
        let tbs = tbs.expect("it can be encoded");
        let signature = self.key.sign(&tbs).expect("signed");
        let leaf = issuing::assemble(&tbs, algorithm, &signature).expect("assembled");
        let above = self.chain.iter().map(|certificate| certificate.der().clone());
        let chain = std::iter::once(CertificateDer::from(leaf)).chain(above).collect();
        Credentials { chain, key: leaf_key.serialize_der() }
    }
}
