//! `status`.

use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::agent_status::status_client::StatusClient;
use ironroot_api::pb::agent_status::{
    GetStatusRequest, GetStatusResponse,
    get_status_response::{Ending, Server},
};
use ironroot_api::utc;
use ironroot_shell::command_line::{Reply, counted, go_duration, int64, labelled};
use serde_json::{Value, json};

use super::admin::Administration;
use crate::report::Stands;

/// Shows how the running agent is: its standing with the server, what it holds, who uses it.
#[derive(Debug, Args)]
#[command(after_help = "Asks the admin socket (admin_socket_path). Example: ironroot-agent status -output json")]
pub(super) struct Status {
    #[command(flatten)]
    administration: Administration,
}

impl Status {
    pub(super) fn execute(self) -> ExitCode {
        self.administration.run(async |channel| {
            let status = StatusClient::new(channel).get_status(GetStatusRequest {}).await?.into_inner();
            Ok(Reply::new(json(&status), text(&status)))
        })
    }
}

fn json(status: &GetStatusResponse) -> Value {
    let ending = |Ending { spiffe_id, ends_at }: &Ending| json!({ "spiffe_id": spiffe_id, "ends_at": int64(*ends_at) });
    json!({
        "version": status.version,
        "uptime": int64(status.uptime),
        "trust_domain": status.trust_domain,
        "standing": status.standing,
        "spiffe_id": status.spiffe_id,
        "attested_until": int64(status.attested_until),
        "server": status.server,
        "synced_at": int64(status.synced_at),
        "is_told_of_changes": status.is_told_of_changes,
        "failures": status.failures,
        "last_failure": status.last_failure,
        "next_contact": int64(status.next_contact),
        "is_cache_sealed": status.is_cache_sealed,
        "has_unopened_cache": status.has_unopened_cache,
        "chip": status.chip,
        "entries": status.entries,
        "x509_svids": status.x509_svids,
        "jwt_svids": status.jwt_svids,
        "users": status.users,
        "connections": status.connections,
        "streams": status.streams,
        "issuance_log": status.issuance_log,
        "local_authority": status.local_authority,
        "servers": status.servers.iter().map(json_of_server).collect::<Vec<_>>(),
        "next_to_end": status.next_to_end.iter().map(ending).collect::<Vec<_>>(),
    })
}

fn json_of_server(server: &Server) -> Value {
    json!({
        "name": server.name,
        "server": server.server,
        "standing": server.standing,
        "spiffe_id": server.spiffe_id,
        "attested_until": int64(server.attested_until),
        "synced_at": int64(server.synced_at),
        "is_told_of_changes": server.is_told_of_changes,
        "failures": server.failures,
        "last_failure": server.last_failure,
        "next_contact": int64(server.next_contact),
        "issuance_log": server.issuance_log,
    })
}

/// How it is with a server: of an agent that has one, what the answer says of itself.
pub(super) fn servers(status: &GetStatusResponse) -> Vec<Server> {
    if !status.servers.is_empty() {
        return status.servers.clone();
    }
    vec![Server {
        name: String::new(),
        server: status.server.clone(),
        standing: status.standing.clone(),
        spiffe_id: status.spiffe_id.clone(),
        attested_until: status.attested_until,
        synced_at: status.synced_at,
        is_told_of_changes: status.is_told_of_changes,
        failures: status.failures,
        last_failure: status.last_failure.clone(),
        next_contact: status.next_contact,
        issuance_log: status.issuance_log.clone(),
    }]
}

/// The lines about one server: names and values.
fn lines_of(server: &Server) -> Vec<(&'static str, String)> {
    let until = match (server.attested_until, server.standing == Stands::Evicted.word()) {
        (0, _) => String::new(),
        (end, false) => format!(" until {}", utc(end)),
        // The eviction does not end then.
        (end, true) => format!(", its certificate ends {}", utc(end)),
    };
    let told = if server.is_told_of_changes { ", tells of changes" } else { "" };
    let name = if server.name.is_empty() { String::new() } else { format!("{} at ", server.name) };
    let next = format!("next contact {}", moment(server.next_contact));
    let mut lines = vec![
        ("Standing", format!("{}{until} {}", server.standing, server.spiffe_id).trim_end().to_owned()),
        ("Server", format!("{name}{}{told}", server.server)),
        ("Last in sync", format!("{}, {next}", moment(server.synced_at))),
    ];
    if server.failures > 0 {
        lines.push((
            "Failing",
            format!("{} in a row: {}", counted(server.failures, "time", "times"), server.last_failure),
        ));
    }
    if !server.issuance_log.is_empty() {
        lines.push(("Issuance log", server.issuance_log.clone()));
    }
    lines
}

fn text(status: &GetStatusResponse) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| labelled(&mut text, 14, name, value);
    let uptime = go_duration(status.uptime.try_into().unwrap_or(i32::MAX));
    line("Agent", format!("{}, up {uptime}, trust domain {}", status.version, status.trust_domain));
    servers(status).iter().flat_map(lines_of).for_each(|(name, value)| line(name, value));
    let chip = if status.chip.is_empty() { "none" } else { &status.chip };
    line("Chip", chip.to_owned());
    let is_banned = servers(status).iter().all(|server| server.standing == Stands::Banned.word());
    let cache = match (status.is_cache_sealed, status.chip.is_empty()) {
        (false, _) if is_banned => "nothing: it is wiped, since the server bans this agent",
        (true, _) => "identities, sealed to the chip",
        (false, _) if status.has_unopened_cache => "sealed identities, which are opened once the chip answers",
        (false, true) => "the agent's own certificate only",
        (false, false) => "nothing new: it is not written yet, or could not be, and then the log says why",
    };
    line("Kept on disk", cache.to_owned());
    if !status.local_authority.is_empty() {
        line("Own CA", status.local_authority.clone());
    }
    let held = [
        counted(status.entries, "entry", "entries"),
        counted(status.x509_svids, "X509-SVID", "X509-SVIDs"),
        counted(status.jwt_svids, "JWT-SVID", "JWT-SVIDs"),
    ];
    line("Holds", held.join(", "));
    let [streams, connections, users] = [
        counted(status.streams, "stream", "streams"),
        counted(status.connections, "connection", "connections"),
        counted(status.users, "user", "users"),
    ];
    line("Serves", format!("{streams} on {connections} of {users}"));
    for Ending { spiffe_id, ends_at } in &status.next_to_end {
        line("Next to end", format!("{} {spiffe_id}", utc(*ends_at)));
    }
    text
}

fn moment(unix: i64) -> String {
    if unix == 0 { "never".to_owned() } else { utc(unix) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_fails_says_why_and_one_that_has_not_attested_says_so() {
        let mut status = GetStatusResponse {
            version: "0.1.0".into(),
            uptime: 61,
            trust_domain: "td".into(),
            standing: "new".into(),
            server: "s:8081".into(),
            failures: 2,
            last_failure: "cannot reach the server".into(),
            ..GetStatusResponse::default()
        };
        let wanted = "Agent         : 0.1.0, up 1m1s, trust domain td
Standing      : new
Server        : s:8081
Last in sync  : never, next contact never
Failing       : 2 times in a row: cannot reach the server
Chip          : none
Kept on disk  : the agent's own certificate only
Holds         : 0 entries, 0 X509-SVIDs, 0 JWT-SVIDs
Serves        : 0 streams on 0 connections of 0 users
";
        assert_eq!(text(&status), wanted);
        let unopened = GetStatusResponse { has_unopened_cache: true, chip: "tpmrm0".into(), ..status.clone() };
        let told = super::text(&unopened);
        assert!(told.contains("Kept on disk  : sealed identities, which are opened once the chip answers"), "{told}");
        let banned = GetStatusResponse { standing: "banned".into(), chip: "tpmrm0".into(), ..status.clone() };
        assert!(super::text(&banned).contains("Kept on disk  : nothing: it is wiped"), "{}", super::text(&banned));
        status.next_to_end = vec![Ending { spiffe_id: "spiffe://td/a".into(), ends_at: 0 }];
        (status.failures, status.is_told_of_changes, status.is_cache_sealed) = (0, true, true);
        let text = text(&status);
        assert!(!text.contains("Failing") && text.contains("s:8081, tells of changes"), "{text}");
        assert!(!text.contains("Own CA"), "{text}");
        let own = GetStatusResponse { local_authority: "none".into(), ..status.clone() };
        assert!(super::text(&own).contains("Own CA        : none\n"));
        assert!(text.ends_with(&format!("Next to end   : {} spiffe://td/a\n", utc(0))), "{text}");
        assert_eq!(json(&status)["next_to_end"][0]["ends_at"], "0");
    }

    #[test]
    fn of_several_servers_each_has_its_own_lines() {
        let server = |name: &str, standing: &str, failures| Server {
            name: name.into(),
            server: format!("{name}.example:8081"),
            standing: standing.into(),
            failures,
            last_failure: "cannot reach the server".into(),
            ..Server::default()
        };
        let servers = vec![server("north", "attested", 0), server("south", "banned", 7)];
        let status = GetStatusResponse { servers, ..GetStatusResponse::default() };
        let text = text(&status);
        for line in [
            "Standing      : attested",
            "Server        : north at north.example:8081",
            "Standing      : banned",
            "Server        : south at south.example:8081",
            "Failing       : 7 times in a row: cannot reach the server",
        ] {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line}: {text}");
        }
        assert_eq!(json(&status)["servers"][1]["standing"], "banned");
    }
}
