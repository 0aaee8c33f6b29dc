//! An entry for people, with SPIRE's labels.

use std::fmt::Display;

use ironroot_api::pb::types::{Entry, Spiffeid};

use ironroot_api::spire_time;
use ironroot_shell::command_line::labelled;

/// Appends `entry` and an empty line.
pub(super) fn describe(text: &mut String, entry: &Entry) {
    line(text, "Entry ID", if entry.id.is_empty() { "(none)" } else { &entry.id });
    line(text, "SPIFFE ID", id(entry.spiffe_id.as_ref()));
    line(text, "Parent ID", id(entry.parent_id.as_ref()));
    line(text, "Revision", entry.revision_number);
    flag(text, "Downstream", entry.downstream);
    line(text, "X509-SVID TTL", ttl(entry.x509_svid_ttl));
    line(text, "JWT-SVID TTL", ttl(entry.jwt_svid_ttl));
    if entry.expires_at != 0 {
        line(text, "Expiration time", spire_time(entry.expires_at));
    }
    for selector in &entry.selectors {
        line(text, "Selector", format_args!("{}:{}", selector.r#type, selector.value));
    }
    entry.federates_with.iter().for_each(|trust_domain| line(text, "FederatesWith", trust_domain));
    entry.dns_names.iter().for_each(|name| line(text, "DNS name", name));
    flag(text, "Admin", entry.admin);
    flag(text, "StoreSvid", entry.store_svid);
    if !entry.hint.is_empty() {
        line(text, "Hint", &entry.hint);
    }
    if let Some(attributes) = &entry.additional_attributes {
        flag(text, "DisableX509SvidPrefetch", attributes.disable_x509_svid_prefetch);
        flag(text, "JwtSvidIncludeJti", attributes.jwt_svid_include_jti);
    }
    text.push('\n');
}

fn line(text: &mut String, label: &str, value: impl Display) {
    labelled(text, 24, label, value);
}

/// What is rarely set is only shown when it is.
fn flag(text: &mut String, label: &str, value: bool) {
    if value {
        line(text, label, value);
    }
}

fn id(id: Option<&Spiffeid>) -> String {
    id.map_or_else(String::new, |id| format!("spiffe://{}{}", id.trust_domain, id.path))
}

fn ttl(seconds: i32) -> String {
    if seconds == 0 { "default".to_owned() } else { seconds.to_string() }
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::types::Selector;

    use super::*;

    #[test]
    fn a_value_of_somebody_elses_adds_no_line() {
        let entry = Entry { hint: "x\nEntry ID                : 2\t\u{202e}".into(), ..Entry::default() };
        let mut text = String::new();
        describe(&mut text, &entry);
        assert!(text.ends_with("Hint                    : x\\nEntry ID                : 2\\t\\u{202e}\n\n"), "{text}");
    }

    #[test]
    fn labels_have_spires_24_columns() {
        let spiffe_id = Spiffeid { trust_domain: "td".into(), path: "/web".into() };
        let selector = Selector { r#type: "unix".into(), value: "uid:1000".into() };
        let entry = Entry {
            id: "1".into(),
            spiffe_id: Some(spiffe_id),
            selectors: vec![selector],
            x509_svid_ttl: 60,
            admin: true,
            ..Entry::default()
        };
        let mut text = String::new();
        describe(&mut text, &entry);
        let wanted = "Entry ID                : 1\nSPIFFE ID               : spiffe://td/web\nParent ID               : \n\
                      Revision                : 0\nX509-SVID TTL           : 60\nJWT-SVID TTL            : default\n\
                      Selector                : unix:uid:1000\nAdmin                   : true\n\n";
        assert_eq!(text, wanted);
    }
}
