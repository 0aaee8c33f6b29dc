//! The admin commands against a running server: real binary, real token, real socket.

mod entry_advice;
mod federation;
mod fleet;
mod running_server;

use std::fs;

use running_server::RunningServer;
use serde_json::Value;

const KIOSK: &str = "spiffe://example.org/kiosk";
const WEB: &str = "spiffe://example.org/web";

#[test]
fn an_entry_lives_from_create_to_delete() {
    let server = RunningServer::start();
    let created = server.ok(&[
        "entry",
        "create",
        "-parentID",
        KIOSK,
        "-spiffeID",
        WEB,
        "-selector",
        "unix:uid:1",
        "-dns",
        "w.example.org",
    ]);
    let id =
        created.lines().find_map(|line| line.strip_prefix("Entry ID                : ")).expect("an ID").to_owned();
    assert!(created.contains("SPIFFE ID               : spiffe://example.org/web\n"), "{created}");
    assert!(created.contains("DNS name                : w.example.org\n"), "{created}");

    let again = server.run(&["entry", "create", "-parentID", KIOSK, "-spiffeID", WEB, "-selector", "unix:uid:1"]);
    assert_eq!((again.code, again.out.as_str()), (1, ""));
    assert!(again.err.starts_with("Failed to create the following entry (code: AlreadyExists, msg: "), "{}", again.err);
    assert!(again.err.ends_with("Error: failed to create one or more entries\n"), "{}", again.err);

    let updated = server.json(&[
        "entry",
        "update",
        "-entryID",
        &id,
        "-parentID",
        KIOSK,
        "-spiffeID",
        WEB,
        "-selector",
        "unix:uid:2",
        "-x509SVIDTTL",
        "60",
        "-disableX509SVIDPrefetch",
    ]);
    let entry = &updated["results"][0]["entry"];
    assert_eq!(entry["revision_number"], "1");
    assert_eq!(entry["x509_svid_ttl"], 60);
    assert_eq!(entry["dns_names"], Value::Array(vec![]), "what is not given falls back");
    assert_eq!(entry["additional_attributes"]["disable_x509_svid_prefetch"], true);
    server.ok(&[
        "entry",
        "update",
        "-entryID",
        &id,
        "-parentID",
        KIOSK,
        "-spiffeID",
        WEB,
        "-selector",
        "unix:uid:2",
        "-jwtSVIDIncludeJTI=true",
    ]);
    let shown = server.json(&["entry", "show", "-entryID", &id]);
    let attributes = &shown["entries"][0]["additional_attributes"];
    assert_eq!(
        (&attributes["disable_x509_svid_prefetch"], &attributes["jwt_svid_include_jti"]),
        (&true.into(), &true.into())
    );

    assert_eq!(server.ok(&["entry", "count", "-selector", "unix:uid:2"]), "1 registration entry\n");
    assert_eq!(server.ok(&["entry", "show", "-selector", "unix:uid:1"]), "Found 0 entries\n");
    assert!(server.ok(&["entry", "delete", "-entryID", &id]).starts_with(&format!("Deleted entry with ID: {id}\n")));
    let gone = server.run(&["entry", "delete", "-entryID", &id]);
    assert_eq!(gone.code, 1);
    assert!(
        gone.err.starts_with(&format!("Failed to delete entry with ID {id} (code: NotFound, msg: ")),
        "{}",
        gone.err
    );
    let gone = server.run(&["entry", "show", "-entryID", &id, "-output", "json"]);
    let error: Value = serde_json::from_str(&gone.err).expect("JSON");
    assert_eq!((gone.code, gone.out.as_str()), (1, ""));
    assert!(error["error"].as_str().is_some_and(|text| text.ends_with("(code: NotFound)")), "{error}");
}

#[test]
fn entries_come_from_a_file_each_with_its_own_fate() {
    let server = RunningServer::start();
    let file = server.path("entries.json");
    let entry = |id: &str| {
        format!(
            r#"{{"spiffe_id": "{id}", "parent_id": "{KIOSK}", "selectors": [{{"type": "unix", "value": "uid:1"}}]}}"#
        )
    };
    let text = format!(r#"{{"entries": [{}, {}]}}"#, entry(WEB), entry("spiffe://other.org/web"));
    fs::write(&file, text).expect("written");
    let created = server.run(&["entry", "create", "-data", &file, "-output", "json"]);
    let results: Value = serde_json::from_str(&created.out).expect("JSON");
    assert_eq!(created.code, 1);
    assert_eq!(
        (&results["results"][0]["status"]["code"], &results["results"][1]["status"]["code"]),
        (&0.into(), &3.into())
    );
    assert_eq!(results["results"][1]["entry"]["spiffe_id"]["trust_domain"], "other.org");
    let ids = server.path("ids.json");
    fs::write(&ids, format!(r#"{{"ids": [{}]}}"#, results["results"][0]["entry"]["id"])).expect("written");
    assert!(server.ok(&["entry", "delete", "-file", &ids]).ends_with("Deleted 1 entries successfully\n"));
}

#[test]
fn flags_that_are_empty_or_not_used_are_as_not_given_as_at_spires() {
    let server = RunningServer::start();
    server.ok(&["entry", "create", "-node", "-parentID", "", "-data", "", "-spiffeID", KIOSK, "-selector", "tpm2:x:y"]);
    assert_eq!(server.ok(&["entry", "count", "-parentID", "", "-spiffeID="]), "1 registration entry\n");
    assert!(
        server.ok(&["entry", "show", "-entryID", "", "-spiffeID", KIOSK, "-hint", ""]).starts_with("Found 1 entry\n")
    );
    let token = server.ok(&["token", "generate", "-spiffeID", ""]);
    assert!(token.contains("Missing SPIFFE ID"), "{token}");
    assert!(server.ok(&["x509", "mint", "-spiffeID", WEB, "-write", ""]).contains("BEGIN CERTIFICATE"));
    for command in [["entry", "show"], ["entry", "count"], ["agent", "list"], ["agent", "count"]] {
        let flag = ["-matchSelectorsOn", "bogus"];
        server.ok(&[&command[..], &flag].concat());
        let used = server.run(&[&command[..], &flag, &["-selector", "unix:uid:1"]].concat());
        assert_eq!(used.code, 1, "{command:?}");
        assert!(used.err.contains("-matchSelectorsOn \"bogus\": use exact, any, superset or subset"), "{}", used.err);
    }
    let path = server.run(&["entry", "show", "-federatesWith", "spiffe://other.org/path"]);
    assert!(path.err.contains("a trust domain has no path: write \"spiffe://other.org\" alone"), "{}", path.err);
    let nothing = server.path("nothing.json");
    fs::write(&nothing, "{}").expect("written");
    server.ok(&["entry", "create", "-data", &nothing]);
    server.ok(&["federation", "create", "-data", &nothing]);
    for verb in ["taint", "revoke"] {
        let own_root = server.run(&["localauthority", "x509", verb, "-authorityID", "00"]);
        let words = format!("\"upstreamauthority {verb} -subjectKeyID\" is for the one before");
        assert!(
            own_root.err.contains(&words) && own_root.err.ends_with("(code: FailedPrecondition)\n"),
            "{}",
            own_root.err
        );
    }
}

#[test]
fn a_server_that_lists_other_ways_to_attest_makes_no_tokens_and_says_what_to_configure() {
    let server = RunningServer::start_as(|text| text.replace("NodeAttestor \"join_token\" { }", ""));
    let refused = server.run(&["token", "generate"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("add NodeAttestor \"join_token\" { }"), "{}", refused.err);
    assert!(refused.err.ends_with("(code: FailedPrecondition)\n"), "{}", refused.err);
}

//= X509-16 TDB-03
#[test]
fn tokens_bundles_and_agents_answer_in_spires_words() {
    let server = RunningServer::start();
    let token = server.ok(&["token", "generate"]);
    let lines: Vec<&str> = token.lines().collect();
    assert!(lines[0].strip_prefix("Token: ").is_some_and(|token| token.len() == 36), "{token}");
    assert_eq!(lines[1], "Warning: Missing SPIFFE ID.");
    let token = server.json(&["token", "generate", "-ttl", "60", "-spiffeID", KIOSK]);
    assert!(token["value"].is_string() && token["expires_at"].is_string(), "{token}");

    let shown = server.run(&["bundle", "show"]);
    assert!(shown.err.starts_with("valid until 20") && !shown.err.contains("no longer"), "a root: {}", shown.err);
    let pem = shown.out;
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n") && pem.ends_with("-----END CERTIFICATE-----\n"), "{pem}");
    let document: Value =
        serde_json::from_str(&server.run(&["bundle", "show", "-format", "spiffe"]).out).expect("JSON");
    let bundle = server.json(&["bundle", "show"]);
    let key = &document["keys"][0];
    assert_eq!((&key["use"], &key["kty"], &key["crv"]), (&"x509-svid".into(), &"EC".into(), &"P-256".into()));
    assert_eq!(key["x5c"], serde_json::json!([bundle["x509_authorities"][0]["asn1"]]), "exactly one");
    assert_eq!(key.get("kid"), None);
    assert!(document["spiffe_refresh_hint"].is_u64() && document["spiffe_sequence"].is_u64(), "{document}");
    assert_eq!(bundle["trust_domain"], "example.org");

    assert_eq!(server.ok(&["agent", "list"]), "No attested agents found\n");
    assert_eq!(server.ok(&["agent", "count", "-banned", "true", "-canReattest", "false"]), "0 attested agents\n");
    assert_eq!(server.ok(&["agent", "purge", "-expiredFor", "1h", "-dryRun"]), "No agents to purge.\n");
    let unknown = "spiffe://example.org/spire/agent/join_token/x";
    for verb in ["show", "ban", "evict"] {
        let refused = server.run(&["agent", verb, "-spiffeID", unknown]);
        assert_eq!(refused.code, 1, "{verb}");
        assert!(refused.err.starts_with("Error: ") && refused.err.ends_with("(code: NotFound)\n"), "{}", refused.err);
    }
}

#[test]
fn health_is_told_before_during_and_after() {
    let mut server = RunningServer::start();
    assert_eq!(server.ok(&["healthcheck", "-verbose"]), "Checking server health...\nServer is healthy.\n");
    assert_eq!(server.ok(&["healthcheck", "-shallow"]), "Server is healthy.\n");
    server.reopens_its_log();
    let log = server.stop();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["time"].is_string() && line["level"].is_string() && line["msg"].is_string(), "{line}");
    }
    let dead = server.run(&["healthcheck"]);
    assert_eq!(dead.code, 1);
    assert!(
        dead.err.starts_with("Error: server is unhealthy: unable to determine health: cannot connect to "),
        "{}",
        dead.err
    );
    assert!(dead.err.contains(": is it running? -socketPath says where it listens: "), "{}", dead.err);
}

//= FLT-S4 REG-11
/// A backup, a curious operator: another program holds SQLite's lock.
#[test]
fn a_locked_data_store_is_named_and_the_server_is_not_healthy_until_it_is_free() {
    let server = RunningServer::start();
    let other = rusqlite::Connection::open(server.path("data/datastore.sqlite3")).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let create = ["entry", "create", "-parentID", KIOSK, "-spiffeID", WEB, "-selector", "unix:uid:1"];
    let refused = server.run(&create);
    assert_eq!(refused.code, 1);
    let expected = "code: Unavailable, msg: \"failed to create entry: the data store is locked by another program\"";
    assert!(refused.err.contains(expected), "{}", refused.err);
    let sick = server.run(&["healthcheck"]);
    assert_eq!(sick.code, 1, "{}", sick.out);
    let expected = "server is unhealthy: the data store takes no changes: database is locked by another program";
    assert!(sick.err.contains(expected), "{}", sick.err);
    other.execute_batch("ROLLBACK").expect("lets go");
    server.becomes_healthy();
    server.ok(&create);
}
