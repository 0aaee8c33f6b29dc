//! How both sides of a connection have agreed on its keys.

use rustls::{CommonState, NamedGroup};

/// The group of a finished handshake, as IANA's registry calls it: `X25519MLKEM768` between peers of today; none before its end.
pub fn key_exchange(connection: &CommonState) -> Option<NamedGroup> {
    connection.negotiated_key_exchange_group().map(|group| group.name())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::crypto::CryptoProvider;
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
    use rustls_pki_types::ServerName;

    use super::*;
    use crate::tls::{KeyExchanges, SvidResolver, provider, web_server_config};

    /// What a client with that provider and a server of ours agree on.
    fn agreed(client: CryptoProvider, server: KeyExchanges) -> Result<[Option<NamedGroup>; 2], rustls::Error> {
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let shown =
            CertifiedKey::from_der(vec![own.der().clone()], key.serialize_der().try_into().unwrap(), &provider());
        let mut roots = RootCertStore::empty();
        roots.add(own.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(client))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from("localhost").unwrap()).unwrap();
        let mut server = ServerConnection::new(web_server_config(SvidResolver::new(shown.unwrap()), server)).unwrap();
        assert_eq!(key_exchange(&server), None);
        while client.is_handshaking() || server.is_handshaking() {
            let mut sent = Vec::new();
            client.write_tls(&mut sent).unwrap();
            server.read_tls(&mut sent.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut answered = Vec::new();
            server.write_tls(&mut answered).unwrap();
            client.read_tls(&mut answered.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok([key_exchange(&client), key_exchange(&server)])
    }

    fn older() -> CryptoProvider {
        let mut older = CryptoProvider::clone(&provider());
        older.kx_groups.retain(|group| group.name() == NamedGroup::secp256r1);
        older
    }

    #[test]
    fn peers_of_ours_agree_on_a_hybrid_with_ml_kem_and_older_ones_get_what_they_know() {
        let first = KeyExchanges::HybridFirst;
        assert_eq!(agreed(CryptoProvider::clone(&provider()), first), Ok([Some(NamedGroup::X25519MLKEM768); 2]));
        assert_eq!(agreed(older(), first), Ok([Some(NamedGroup::secp256r1); 2]));
    }

    #[test]
    fn who_requires_the_hybrid_has_no_link_with_a_peer_that_does_not_know_it() {
        let (first, only) = (KeyExchanges::HybridFirst, KeyExchanges::HybridOnly);
        let ours = |exchanges: KeyExchanges| CryptoProvider::clone(&exchanges.provider());
        for (client, server) in [(first, only), (only, first), (only, only)] {
            assert_eq!(agreed(ours(client), server), Ok([Some(NamedGroup::X25519MLKEM768); 2]));
        }
        assert_eq!(agreed(older(), only), Err(rustls::PeerIncompatible::NoKxGroupsInCommon.into()));
    }
}
