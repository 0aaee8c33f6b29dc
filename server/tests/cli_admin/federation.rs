//! `bundle` and `federation` against a live server.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use crate::running_server::RunningServer;
use crate::{KIOSK, WEB};

const PARTNER: &str = "spiffe://partner.example";

fn authority() -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&KeyPair::generate().expect("key")).expect("root").pem()
}

//= FED-13
#[test]
fn a_bundle_of_another_trust_domain_is_set_shown_asked_for_and_deleted() {
    let server = RunningServer::start();
    assert_eq!(server.ok(&["bundle", "count"]), "1 bundle\n");
    let pem = authority();
    let set = server.run_with_input(&["bundle", "set", "-id", PARTNER], pem.as_bytes());
    assert_eq!((set.code, set.out.as_str()), (0, "bundle set.\n"), "{}", set.err);
    assert_eq!(server.ok(&["bundle", "count"]), "2 bundles\n");
    assert_eq!(server.ok(&["bundle", "list", "-id", PARTNER]).replace("\r", ""), pem.replace("\r", ""));
    let listed = server.ok(&["bundle", "list"]);
    assert!(listed.starts_with("****************************************\n* partner.example\n*****"), "{listed}");

    let document = server.ok(&["bundle", "list", "-id", PARTNER, "-format", "spiffe"]);
    let file = server.path("partner.json");
    fs::write(&file, &document).expect("written");
    let replaced = server.json(&["bundle", "set", "-id", PARTNER, "-format", "spiffe", "-path", &file]);
    assert_eq!(replaced["results"][0]["bundle"]["trust_domain"], "partner.example");
    assert_eq!(server.ok(&["bundle", "list", "-id", PARTNER, "-format", "spiffe"]), document);

    let create = ["entry", "create", "-parentID", KIOSK, "-spiffeID", WEB, "-selector", "unix:uid:1", "-federatesWith"];
    let unknown = server.run(&[&create[..], &["spiffe://nobody.example"]].concat());
    assert!(unknown.err.contains("unable to find federated bundle \\\"spiffe://nobody.example\\\""), "{}", unknown.err);
    let created = server.ok(&[&create[..], &[PARTNER]].concat());
    assert!(created.contains("FederatesWith           : partner.example\n"), "{created}");
    assert_eq!(server.ok(&["entry", "count", "-federatesWith", PARTNER]), "1 registration entry\n");

    let kept = server.run(&["bundle", "delete", "-id", PARTNER]);
    assert_eq!(kept.code, 1);
    assert!(kept.err.contains("cannot delete bundle; federated with 1 registration entries"), "{}", kept.err);
    assert_eq!(server.ok(&["bundle", "delete", "-id", PARTNER, "-mode", "dissociate"]), "bundle deleted.\n");
    assert_eq!(server.ok(&["entry", "count", "-federatesWith", PARTNER]), "0 registration entries\n");
    for (arguments, why) in [
        (&["bundle", "set", "-path", &file][..], "id flag is required"),
        (&["bundle", "set", "-id", "spiffe://example.org", "-format", "spiffe", "-path", &file], "own trust domain"),
        (&["bundle", "set", "-id", PARTNER, "-path", &file], "there is no certificate"),
        (&["bundle", "list", "-id", PARTNER], "bundle not found"),
        (&["bundle", "delete"], "id is required"),
    ] {
        let refused = server.run(arguments);
        assert!(refused.code == 1 && refused.err.contains(why), "{arguments:?}: {}", refused.err);
    }
}

#[test]
fn a_relationship_is_created_changed_shown_and_deleted() {
    let server = RunningServer::start();
    let bundle = server.path("partner.pem");
    fs::write(&bundle, authority()).expect("written");
    let spiffe = "Trust domain              : partner.example
Bundle endpoint URL       : https://partner.example:8443
Bundle endpoint profile   : https_spiffe
Endpoint SPIFFE ID        : spiffe://partner.example/spire/server
";
    let of = ["-trustDomain", "partner.example", "-bundleEndpointURL"];
    let create = [
        &["federation", "create"],
        &of[..],
        &["https://partner.example:8443", "-bundleEndpointProfile", "https_spiffe", "-endpointSpiffeID"],
        &["spiffe://partner.example/spire/server", "-trustDomainBundlePath", &bundle],
    ]
    .concat();
    assert_eq!(server.ok(&create), format!("\n{spiffe}"));
    assert_eq!(server.ok(&["bundle", "count"]), "2 bundles\n");
    let again = server.run(&create);
    assert!(
        again.code == 1 && again.err.contains("(code: Internal, msg: \"failed to create federation"),
        "{}",
        again.err
    );
    assert_eq!(server.ok(&["federation", "list"]), format!("Found 1 federation relationship\n\n{spiffe}"));
    let shown = server.ok(&["federation", "show", "-trustDomain", "partner.example"]);
    assert_eq!(shown, format!("Found a federation relationship with trust domain partner.example:\n\n{spiffe}"));

    let update =
        [&["federation", "update"], &of[..], &["https://x.example/b", "-bundleEndpointProfile", "https_web"]].concat();
    let updated = server.json(&update);
    let relationship = &updated["results"][0]["federation_relationship"];
    assert_eq!(relationship["https_web"], serde_json::json!({}));
    assert_eq!(relationship["bundle_endpoint_url"], "https://x.example/b");
    assert!(relationship["trust_domain_bundle"]["x509_authorities"][0]["asn1"].is_string(), "{relationship}");

    assert_eq!(server.ok(&["federation", "delete", "-id", PARTNER]), "federation relationship deleted.\n");
    assert_eq!(server.ok(&["federation", "list"]), "Found 0 federation relationships\n");
    assert_eq!(server.ok(&["bundle", "count"]), "2 bundles\n", "the bundle stays");
    for (arguments, why) in [
        (&["federation", "show", "-trustDomain", "partner.example"][..], "federation relationship does not exist"),
        (&["federation", "delete", "-id", PARTNER], "federation relationship not found"),
        (&["federation", "delete"], "id is required"),
        (&["federation", "show"], "a trust domain name is required"),
        (&update, "unable to fetch federation relationship"),
        (&["federation", "create"], "trust domain is required"),
        (&["federation", "create", "-trustDomain", "a"], "bundle endpoint URL is required"),
        (
            &["federation", "create", "-trustDomain", "a", "-bundleEndpointURL", "https://a"],
            "unknown bundle endpoint profile type: \"\"",
        ),
        (&[&create[..], &["-data", "-"]].concat(), "cannot use other flags"),
    ] {
        let refused = server.run(arguments);
        assert!(refused.code == 1 && refused.err.contains(why), "{arguments:?}: {}", refused.err);
    }
}

#[test]
fn relationships_come_from_a_file_and_each_is_judged_by_itself() {
    let server = RunningServer::start();
    let pem = serde_json::Value::from(authority());
    let file = format!(
        r#"{{ "federationRelationships": [
            {{ "trustDomain": "one.example", "bundleEndpointURL": "https://one.example", "bundleEndpointProfile": "https_web",
               "trustDomainBundleFormat": "pem", "trustDomainBundle": {pem} }},
            {{ "trustDomain": "two.example", "bundleEndpointURL": "http://two.example", "bundleEndpointProfile": "https_web" }},
            {{ "trustDomain": "three.example", "bundleEndpointURL": "https://three.example",
               "bundleEndpointProfile": "https_spiffe", "endpointSPIFFEID": "spiffe://three.example/s",
               "trustDomainBundleFormat": "spiffe", "trustDomainBundle": {{ "keys": [] }} }}
        ] }}"#
    );
    let created = server.run_with_input(&["federation", "create", "-data", "-"], file.as_bytes());
    assert_eq!(created.code, 1);
    assert!(created.out.contains("one.example") && created.out.contains("three.example"), "{}", created.out);
    let refused = "(code: InvalidArgument, msg: \"failed to convert federation relationship: bundle endpoint URL must use the \
                   https scheme\"):";
    assert!(created.err.contains(refused) && created.err.contains("two.example"), "{}", created.err);
    assert_eq!(server.ok(&["bundle", "count"]), "3 bundles\n");
    let all = server.json(&["federation", "list"]);
    assert_eq!(all["federation_relationships"].as_array().map(Vec::len), Some(2));
}
