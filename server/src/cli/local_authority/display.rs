//! Authorities as SPIRE's commands print them. Source: SPIRE, cmd/spire-server/cli/authoritycommon, pkg/common/cliprinter.

use ironroot_api::pb::localauthority::AuthorityState;
use ironroot_api::spire_time;
use ironroot_shell::command_line::{CommandError, Reply, int64, shown as escaped};
use serde_json::{Map, Value, json};

/// What the lines are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    X509,
    Jwt,
    Wit,
    Root,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::X509 => "X.509",
            Self::Jwt => "JWT",
            Self::Wit => "WIT",
            Self::Root => "X.509 upstream",
        }
    }

    fn state(self, state: &AuthorityState) -> String {
        let AuthorityState { authority_id, expires_at, upstream_authority_subject_key_id: upstream } = state;
        let (authority_id, upstream) = (escaped(authority_id), upstream.as_str());
        let common = format!("  Authority ID: {authority_id}\n  Expires at: {}\n", spire_time(*expires_at));
        match (self, upstream.is_empty()) {
            (Self::Jwt | Self::Wit, _) => common,
            (Self::Root, _) => format!("  Subject Key ID: {authority_id}\n  Expires at: {}\n", spire_time(*expires_at)),
            (Self::X509, true) => format!("{common}  Upstream authority ID: No upstream authority\n"),
            (Self::X509, false) => format!("{common}  Upstream authority Subject Key ID: {}\n", escaped(upstream)),
        }
    }
}

fn json_of(state: &AuthorityState) -> Value {
    json!({
        "authority_id": state.authority_id,
        "expires_at": int64(state.expires_at),
        "upstream_authority_subject_key_id": state.upstream_authority_subject_key_id,
    })
}

/// The answer of `show`: the active, the prepared and the old authority.
pub(super) fn shown(kind: Kind, states: [Option<AuthorityState>; 3]) -> Reply {
    let (mut fields, mut parts) = (Map::new(), Vec::new());
    for (name, state) in ["active", "prepared", "old"].into_iter().zip(states) {
        let text = match &state {
            Some(state) => kind.state(state),
            None => format!("  No {name} {} authority found\n", kind.name()),
        };
        parts.push(format!("{} {} authority:\n{text}", capital(name), kind.name()));
        if let Some(state) = state {
            fields.insert(name.to_owned(), json_of(&state));
        }
    }
    Reply::new(Value::Object(fields), parts.join("\n"))
}

/// The same of roots, with the `published` ones of the authority above behind them.
pub(super) fn shown_roots(states: [Option<AuthorityState>; 3], published: &[AuthorityState]) -> Reply {
    let mut reply = shown(Kind::Root, states);
    for root in published {
        reply.text.push_str(&format!("\nPublished {} authority:\n{}", Kind::Root.name(), Kind::Root.state(root)));
    }
    if !published.is_empty() {
        reply.json["published"] = published.iter().map(json_of).collect();
    }
    reply
}

/// The answer of a verb; `done`: its past participle.
pub(super) fn done(kind: Kind, done: &str, state: Option<AuthorityState>) -> Result<Reply, CommandError> {
    let missing = || CommandError::Malformed(format!("the server's answer lacks the {done} authority"));
    let state = state.ok_or_else(missing)?;
    let text = format!("{} {} authority:\n{}", capital(done), kind.name(), kind.state(&state));
    let field = format!("{done}_authority");
    Ok(Reply::new(json!({ field: json_of(&state) }), text))
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(id: &str, expires_at: i64, upstream: &str) -> AuthorityState {
        let upstream_authority_subject_key_id = upstream.to_owned();
        AuthorityState { authority_id: id.to_owned(), expires_at, upstream_authority_subject_key_id }
    }

    // Vectors: SPIRE cmd/spire-server/cli/localauthority/x509, x509_show_test.go and x509_activate_test.go.
    #[test]
    fn authorities_are_printed_as_spires_command_prints_them() {
        let active = || state("active-id", 1001, "some-subject-key-id");
        let reply = shown(Kind::X509, [Some(active()), None, Some(state("old-id", 1003, ""))]);
        assert_eq!(
            reply.text,
            "Active X.509 authority:\n  Authority ID: active-id\n  Expires at: 1970-01-01 00:16:41 +0000 UTC\n  Upstream authority \
             Subject Key ID: some-subject-key-id\n\nPrepared X.509 authority:\n  No prepared X.509 authority found\n\nOld X.509 \
             authority:\n  Authority ID: old-id\n  Expires at: 1970-01-01 00:16:43 +0000 UTC\n  Upstream authority ID: No upstream \
             authority\n"
        );
        let json = r#"{"active":{"authority_id":"active-id","expires_at":"1001","upstream_authority_subject_key_id":"some-subject-key-id"},"old":{"authority_id":"old-id","expires_at":"1003","upstream_authority_subject_key_id":""}}"#;
        assert_eq!(reply.json.to_string(), json);
        let reply = done(Kind::Jwt, "activated", Some(active())).expect("an authority");
        let text = "Activated JWT authority:\n  Authority ID: active-id\n  Expires at: 1970-01-01 00:16:41 +0000 UTC\n";
        assert_eq!(reply.text, text);
        let json = r#"{"activated_authority":{"authority_id":"active-id","expires_at":"1001","upstream_authority_subject_key_id":"some-subject-key-id"}}"#;
        assert_eq!(reply.json.to_string(), json);
        assert!(done(Kind::Jwt, "tainted", None).is_err());
    }

    #[test]
    fn roots_that_are_only_published_stand_behind_those_that_cas_hang_on() {
        let states = || [Some(state("aa", 1001, "")), None, None];
        let (plain, with) = (shown_roots(states(), &[]), shown_roots(states(), &[state("bb", 1003, "")]));
        assert_eq!((plain.text.as_str(), &plain.json["published"]), (&*shown(Kind::Root, states()).text, &Value::Null));
        let more = "\nPublished X.509 upstream authority:\n  Subject Key ID: bb\n  Expires at: 1970-01-01 00:16:43 +0000 UTC\n";
        assert_eq!(with.text.strip_prefix(&plain.text), Some(more));
        assert_eq!(with.json["published"][0]["authority_id"], "bb");
    }
}
