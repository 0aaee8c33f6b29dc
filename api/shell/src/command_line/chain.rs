//! What `debug getinfo` of both daemons prints of certificates and times. Source: SPIRE, cmd/spire-server/cli/debug.

use std::fmt::Write as _;

use ironroot_api::pb::types;
use ironroot_api::utc;
use serde_json::{Value, json};

use super::{int64, shown};

/// A certificate as it is shown.
#[derive(Clone, Copy, Debug)]
pub struct ShownCertificate<'a> {
    /// Absent from certificates without one.
    pub id: Option<&'a types::Spiffeid>,
    /// UNIX seconds.
    pub expires_at: i64,
    /// RFC 2253.
    pub subject: &'a str,
}

impl ShownCertificate<'_> {
    /// In the JSON form of protocol buffers.
    pub fn json(&self) -> Value {
        let mut fields = json!({ "expires_at": int64(self.expires_at), "subject": self.subject });
        if let Some(id) = self.id {
            fields["id"] = json!({ "trust_domain": id.trust_domain, "path": id.path });
        }
        fields
    }
}

/// A chain for people; empty if it is.
pub fn chain_text<'a>(chain: impl ExactSizeIterator<Item = ShownCertificate<'a>>) -> String {
    let mut text = String::new();
    if chain.len() > 0 {
        text.push_str("  SVID Chain:\n");
    }
    for (index, ShownCertificate { id, expires_at, subject }) in chain.enumerate() {
        let id = id.map_or_else(|| "(none)".to_owned(), |id| format!("spiffe://{}{}", id.trust_domain, id.path));
        let (id, subject, expires) = (shown(id), shown(subject), utc(expires_at));
        write!(text, "    [{index}] SPIFFE ID:  {id}\n        Subject:    {subject}\n        Expires At: {expires}\n")
            .expect("writing to a string cannot fail");
    }
    text
}

/// As Go writes it: `1h2m3s`, without the parts in front that are 0.
pub fn go_duration(seconds: i32) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_and_a_duration_read_as_spires_commands_print_them() {
        let id = types::Spiffeid { trust_domain: "td".into(), path: "/spire/server".into() };
        let shown = [Some(&id), None].map(|id| ShownCertificate { id, expires_at: 0, subject: "O=SPIRE,C=US" });
        let wanted = "  SVID Chain:
    [0] SPIFFE ID:  spiffe://td/spire/server
        Subject:    O=SPIRE,C=US
        Expires At: TIME
    [1] SPIFFE ID:  (none)
        Subject:    O=SPIRE,C=US
        Expires At: TIME
"
        .replace("TIME", &utc(0));
        assert_eq!(chain_text(shown.into_iter()), wanted);
        assert_eq!(chain_text([].into_iter()), "");
        assert_eq!(shown[1].json(), json!({ "expires_at": "0", "subject": "O=SPIRE,C=US" }));
        assert_eq!([0, 59, 60, 3600, 3723].map(go_duration), ["0s", "59s", "1m0s", "1h0m0s", "1h2m3s"]);
    }
}
