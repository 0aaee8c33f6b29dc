//! `status`.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::server_status::get_status_response::{Authority, Trouble, WebCertificate};
use ironroot_api::pb::server_status::status_client::StatusClient;
use ironroot_api::pb::server_status::{GetStatusRequest, GetStatusResponse};
use ironroot_api::utc;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::{Reply, counted, go_duration, int64, labelled};
use serde_json::{Value, json};

use super::connection::Connection;
use crate::status::why_none_is_next;

/// Shows how the running server is: what is wrong, the CA and when it ends, token, agents, devices, entries.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1: something keeps the server from its work. Example: ironroot-server status -output json"
)]
pub(super) struct Status {
    #[command(flatten)]
    connection: Connection,
}

impl Status {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let channel = connection.open().await?;
            let status = StatusClient::new(channel).get_status(GetStatusRequest {}).await?.into_inner();
            let failed = !status.troubles.is_empty();
            Ok(Reply { failed, ..Reply::new(json(&status), text(&status)) })
        })
    }
}

fn json(status: &GetStatusResponse) -> Value {
    let trouble = |Trouble { what, why }: &Trouble| json!({ "what": what, "why": why });
    let authority = |authority: &Authority| {
        json!({
            "purpose": authority.purpose,
            "active_id": authority.active_id,
            "active_until": int64(authority.active_until),
            "prepared_id": authority.prepared_id,
            "prepared_until": int64(authority.prepared_until),
            "awaits_root": authority.awaits_root,
        })
    };
    let web_certificate =
        |it: &WebCertificate| json!({ "listener": it.listener, "name": it.name, "until": int64(it.until) });
    json!({
        "version": status.version,
        "uptime": int64(status.uptime),
        "trust_domain": status.trust_domain,
        "healthy": status.troubles.is_empty(),
        "troubles": status.troubles.iter().map(trouble).collect::<Vec<_>>(),
        "authorities": status.authorities.iter().map(authority).collect::<Vec<_>>(),
        "keys": status.keys,
        "token_queue": status.token_queue,
        "data_store": status.data_store,
        "agents": {
            "current": status.agents_current,
            "late": status.agents_late,
            "expired": status.agents_expired,
            "banned": status.agents_banned,
        },
        "devices": {
            "enrolled": status.devices_enrolled,
            "pending": status.devices_pending,
            "banned": status.devices_banned,
            "suspected": status.devices_suspected,
            "booted_otherwise": status.devices_booted_otherwise,
        },
        "entries": status.entries,
        "federation": { "bundles": status.federated_bundles, "failing": status.federation_failing },
        "listeners": status.listeners.iter().map(|it| json!({ "what": it.what, "address": it.address })).collect::<Vec<_>>(),
        "web_certificates": status.web_certificates.iter().map(web_certificate).collect::<Vec<_>>(),
        "warnings": status.warnings,
    })
}

fn text(status: &GetStatusResponse) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| labelled(&mut text, 14, name, value);
    let uptime = go_duration(status.uptime.try_into().unwrap_or(i32::MAX));
    line("Server", format!("{}, up {uptime}, trust domain {}", status.version, status.trust_domain));
    if status.troubles.is_empty() {
        line("Health", "able to do its work".to_owned());
    }
    for Trouble { what, why } in &status.troubles {
        line("TROUBLE", format!("{what}: {why}"));
    }
    status.authorities.iter().for_each(|authority| line(name(&authority.purpose), in_words(authority, status)));
    line("Keys", format!("{}, {}", status.keys, counted(status.token_queue, "request waits", "requests wait")));
    line("Data store", status.data_store.clone());
    let (current, late, expired) = (status.agents_current, status.agents_late, status.agents_expired);
    line("Agents", format!("{current} current, {late} late, {expired} expired, {} banned", status.agents_banned));
    let (enrolled, pending) = (status.devices_enrolled, status.devices_pending);
    line(
        "Devices",
        format!("{enrolled} enrolled, {pending} pending, {} banned{}", status.devices_banned, oddities(status)),
    );
    line("Entries", status.entries.to_string());
    let (bundles, failing) = (status.federated_bundles, status.federation_failing);
    let bundles = counted(bundles, "bundle of another", "bundles of others");
    line("Federation", format!("{bundles}, {failing} cannot be fetched"));
    status.listeners.iter().for_each(|listener| line("Listens", format!("{} for {}", listener.address, listener.what)));
    for certificate in &status.web_certificates {
        let (name, value) = web_in_words(certificate, wall_unix());
        line(name, value);
    }
    status.warnings.iter().for_each(|warning| line("Warning", warning.clone()));
    text
}

fn name(purpose: &str) -> &'static str {
    match purpose {
        "root" => "Root",
        "x509_ca" => "CA",
        _ => "JWT key",
    }
}

fn in_words(authority: &Authority, status: &GetStatusResponse) -> String {
    let Authority { active_id, active_until, prepared_id, prepared_until, .. } = authority;
    let active = match active_id.is_empty() {
        true => "nothing signs".to_owned(),
        false => format!("{active_id} until {}", utc(*active_until)),
    };
    match prepared_id.is_empty() {
        true => format!("{active}; the next {}", why_none_is_next(authority, status)),
        false => format!("{active}; next {prepared_id} until {}", utc(*prepared_until)),
    }
}

/// A listener without a certificate that is valid serves nobody.
fn web_in_words(WebCertificate { listener, name, until }: &WebCertificate, now_unix: i64) -> (&'static str, String) {
    let of = format!("certificate of {name} for {listener}");
    match *until {
        0 => ("WARNING", format!("{of}: there is none yet; the log says why")),
        until if until < now_unix => ("WARNING", format!("{of}: it has ended, {}", utc(until))),
        until => ("Web", format!("{of} until {}", utc(until))),
    }
}

fn oddities(status: &GetStatusResponse) -> String {
    let mut told = String::new();
    for (number, words) in [
        (status.devices_booted_otherwise, "booted what no policy allows"),
        (status.devices_suspected, "share a chip, it seems"),
    ] {
        if number > 0 {
            write!(told, "; {number} {words}").expect("writing to a string cannot fail");
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::server_status::get_status_response::Listener;

    use super::*;

    fn web(name: &str, until: i64) -> WebCertificate {
        WebCertificate { listener: "bundle".into(), name: name.into(), until }
    }

    #[test]
    fn what_is_wrong_comes_first_and_the_next_authority_is_told() {
        let status = GetStatusResponse {
            version: "0.1.0".into(),
            uptime: 61,
            trust_domain: "td".into(),
            troubles: vec![Trouble { what: "token".into(), why: "it does not sign".into() }],
            authorities: vec![Authority {
                purpose: "x509_ca".into(),
                active_id: "aa".into(),
                prepared_id: "bb".into(),
                ..Authority::default()
            }],
            keys: "token \"ca\"".into(),
            data_store: "/d/x.sqlite3".into(),
            agents_late: 3,
            devices_enrolled: 7,
            devices_booted_otherwise: 1,
            listeners: vec![Listener { what: "agents".into(), address: "0.0.0.0:8081".into() }],
            web_certificates: vec![web("w.example", 0), web("/c.pem", 1), web("x.example", 253_402_300_799)],
            warnings: vec!["mind this".into()],
            ..GetStatusResponse::default()
        };
        let wanted = "Server        : 0.1.0, up 1m1s, trust domain td
TROUBLE       : token: it does not sign
CA            : aa until 1970-01-01T00:00:00Z; next bb until 1970-01-01T00:00:00Z
Keys          : token \"ca\", 0 requests wait
Data store    : /d/x.sqlite3
Agents        : 0 current, 3 late, 0 expired, 0 banned
Devices       : 7 enrolled, 0 pending, 0 banned; 1 booted what no policy allows
Entries       : 0
Federation    : 0 bundles of others, 0 cannot be fetched
Listens       : 0.0.0.0:8081 for agents
WARNING       : certificate of w.example for bundle: there is none yet; the log says why
WARNING       : certificate of /c.pem for bundle: it has ended, 1970-01-01T00:00:01Z
Web           : certificate of x.example for bundle until 9999-12-31T23:59:59Z
Warning       : mind this
";
        assert_eq!(text(&status), wanted);
        let json = json(&status);
        assert_eq!((&json["healthy"], &json["agents"]["late"]), (&false.into(), &3.into()));
        assert!(text(&GetStatusResponse::default()).contains("Health        : able to do its work"));
    }

    #[test]
    fn why_nothing_comes_next_is_told_as_it_is() {
        let trouble = Trouble { what: "rotation".into(), why: "it has failed".into() };
        for (awaits_root, troubles, said) in [
            ("", vec![], "aa until 1970-01-01T00:00:00Z; the next is not due yet"),
            ("/d/ca-request.pem", vec![], "; the next waits for the root"),
            ("", vec![trouble], "; the next is not there"),
        ] {
            let (active_id, awaits_root) = ("aa".to_owned(), awaits_root.to_owned());
            let ca = Authority { purpose: "x509_ca".into(), active_id, awaits_root, ..Authority::default() };
            let status = GetStatusResponse { troubles, authorities: vec![ca], ..GetStatusResponse::default() };
            let text = text(&status);
            assert!(text.contains(said), "{said} in {text}");
            assert_eq!(json(&status)["authorities"][0]["awaits_root"], status.authorities[0].awaits_root);
        }
    }
}
