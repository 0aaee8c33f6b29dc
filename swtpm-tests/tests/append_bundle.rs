//! AppendBundle: authorities of another server of the trust domain, in its own bundle.

use ironroot_api::certificate::Certificate;
use ironroot_api::pb::bundle::AppendBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::types::{Bundle, BundleMask, JwtKey, WitKey, X509Certificate};
use ironroot_lab::deployment::{Server, ServerOptions};
use ironroot_lab::server_client::ServerClient;
use ironroot_server::ca::MAX_APPENDED;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PublicKeyData};
use tonic::{Code, Status};

async fn append(
    client: &ServerClient,
    x509_authorities: Vec<X509Certificate>,
    jwt_authorities: Vec<JwtKey>,
    output_mask: Option<BundleMask>,
) -> Result<Bundle, Status> {
    let wit_authorities = vec![WitKey { key_id: "passed over".into(), ..WitKey::default() }];
    let request = AppendBundleRequest { x509_authorities, jwt_authorities, output_mask, wit_authorities };
    BundleClient::new(client.admin().await).append_bundle(request).await.map(tonic::Response::into_inner)
}

fn root() -> X509Certificate {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let der = params.self_signed(&KeyPair::generate().expect("a key")).expect("signed").der().to_vec();
    X509Certificate { asn1: der.into(), tainted: false }
}

fn key(key_id: &str) -> JwtKey {
    let public_key = KeyPair::generate().expect("a key").subject_public_key_info().into();
    JwtKey { public_key, key_id: key_id.to_owned(), expires_at: 0, tainted: false }
}

#[tokio::test]
async fn what_is_appended_is_in_the_bundle_that_is_answered_and_stays_there_over_a_restart() {
    let mut server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let (other, named) = (root(), key("of-the-other-server"));
    let bundle = append(&client, vec![other.clone()], vec![named.clone()], None).await.expect("appended");
    assert_eq!((bundle.x509_authorities.len(), bundle.jwt_authorities.len()), (2, 2));
    assert!(bundle.wit_authorities.is_empty(), "as SPIRE passes them over");
    let again = append(&client, vec![other.clone()], vec![named.clone()], None).await.expect("appended");
    assert_eq!(again.sequence_number, bundle.sequence_number, "nothing new changes nothing");
    let mask = BundleMask { jwt_authorities: true, ..BundleMask::default() };
    let masked = append(&client, vec![root()], Vec::new(), Some(mask)).await.expect("appended");
    assert_eq!((masked.x509_authorities.len(), masked.jwt_authorities.len(), masked.sequence_number), (0, 2, 0));
    server.kill();
    server.restart();
    let shown = Certificate::parse_pem(&server.bundle_pem()).expect("PEM");
    assert!(shown.len() == 3 && shown.iter().any(|one| one.der()[..] == other.asn1[..]));
    assert!(server.log().contains("AppendBundle") && server.log().contains("of-the-other-server"), "{}", server.log());
}

#[tokio::test]
async fn what_nobody_could_use_is_refused_in_spires_words_and_nothing_is_half_taken() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let refused = async |x509, jwt| {
        let status: Status = append(&client, x509, jwt, None).await.expect_err("refused");
        (status.code(), status.message().to_owned())
    };
    let nothing = refused(Vec::new(), Vec::new()).await;
    assert_eq!(nothing, (Code::InvalidArgument, "no authorities to append".to_owned()));
    let unnamed = refused(vec![root()], vec![key("")]).await;
    assert_eq!(unnamed, (Code::InvalidArgument, "failed to convert JWT authority: missing key ID".to_owned()));
    let garbage = X509Certificate { asn1: b"none".to_vec().into(), tainted: false };
    let (code, words) = refused(vec![root(), garbage], vec![key("k")]).await;
    assert!(code == Code::InvalidArgument && words.starts_with("failed to convert X.509 authority: "), "{words}");
    let many = (0..=MAX_APPENDED).map(|number| key(&number.to_string())).collect();
    let (code, words) = refused(Vec::new(), many).await;
    assert!(code == Code::ResourceExhausted && words.contains("64 authorities"), "{words}");
    assert_eq!(Certificate::parse_pem(&server.bundle_pem()).expect("PEM").len(), 1);
}
