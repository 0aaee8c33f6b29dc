//! Selectors that no attestor of this project produces: an entry that asks for one never matches. Told, never refused: a SPIRE
//! agent with other plugins may serve the same server.

use ironroot_attest::Selector;

use crate::token_exchange::SELECTOR_TYPE;

/// What the TPM attestor and the device registry give. Source: `ironroot_attest::node::tpm2`, [`crate::facts::device`].
const TPM2_FORMS: [&str; 13] = [
    "ek:sha256:",
    "ek:issuer:cn:",
    "fw:",
    "key:resident",
    "pcr:",
    "secureboot:",
    "debug:off",
    "policy:",
    "weakness:",
    "manufacturer:",
    "model:",
    "serial:",
    "label:",
];
/// What the unix attestor gives; each is also the name under which people look for it.
const UNIX_FORMS: [&str; 8] =
    ["uid", "gid", "user", "group", "supplementary_gid", "supplementary_group", "path", "sha256"];
/// Types that SPIRE's agents produce with plugins that ours do not have.
const SPIRES_TYPES: [&str; 4] = ["k8s", "docker", "windows", "systemd"];

/// Why a node entry with this selector matches no device of ours, if so.
pub fn never_of_a_node(selector: &Selector) -> Option<String> {
    let (kind, value) = (selector.kind(), selector.value());
    match kind {
        "tpm2" => tpm2_doubt(value),
        "unix" => Some(format!("{selector} is a process's: an entry for devices (-node) never matches by it")),
        _ if SPIRES_TYPES.contains(&kind) => Some(format!("{selector} is a process's, not a device's")),
        _ => Some(format!("no node attestor here gives selectors of type {kind:?}; those of devices are of type tpm2")),
    }
}

/// Why an entry for workloads with this selector matches no process of ours, if so.
pub fn never_of_a_workload(selector: &Selector) -> Option<String> {
    let (kind, value) = (selector.kind(), selector.value());
    match kind {
        "unix" => unix_doubt(value),
        "systemd" | "spiffe_id" => None,
        "tpm2" => Some(format!("{selector} is a device's: create that entry with -node, and this one below it")),
        _ if UNIX_FORMS.contains(&kind) => Some(format!("no attestor gives {selector}: did you mean unix:{selector}?")),
        _ if SPIRES_TYPES.contains(&kind) => {
            Some(format!("only SPIRE's agents with the {kind} plugin give {selector}"))
        }
        _ => Some(format!(
            "no workload attestor here gives selectors of type {kind:?}; those of processes are of type unix"
        )),
    }
}

/// Why an entry for tokens of other issuers with this selector matches none, if so.
pub fn never_of_a_token(selector: &Selector) -> Option<String> {
    let has_both =
        selector.value().split_once(':').is_some_and(|(claim, value)| !claim.is_empty() && !value.is_empty());
    let is_of_a_token = selector.kind() == SELECTOR_TYPE && has_both;
    (!is_of_a_token).then(|| format!("no token gives {selector}: write {SELECTOR_TYPE}:<claim>:<value>"))
}

fn tpm2_doubt(value: &str) -> Option<String> {
    let Some(label) = value.strip_prefix("label:") else {
        let known = TPM2_FORMS.iter().any(|form| value.starts_with(form));
        return (!known).then(|| format!("no TPM gives tpm2:{value}: it must be one of {}", TPM2_FORMS.join(", ")));
    };
    match (label.split_once(':'), label.split_once('=')) {
        (Some(_), _) => None,
        (None, Some((name, word))) => Some(format!("no label gives tpm2:{value}: write tpm2:label:{name}:{word}")),
        (None, None) => Some(format!("no label gives tpm2:{value}: write tpm2:label:<name>:<value>")),
    }
}

fn unix_doubt(value: &str) -> Option<String> {
    let (form, content) = value.split_once(':').unwrap_or((value, ""));
    let wrong = |what: &str| Some(format!("no process gives unix:{value}: {what}"));
    let is_number = || content.parse::<u32>().is_ok_and(|number| number.to_string() == content);
    let is_hash = || content.len() == 64 && content.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match form {
        "uid" | "gid" | "supplementary_gid" if !is_number() => {
            wrong("an ID is a number; names are unix:user and unix:group")
        }
        "path" if !content.starts_with('/') => wrong("a path begins with /"),
        "sha256" if !is_hash() => wrong("a SHA-256 is 64 digits of 0-9 and a-f"),
        _ if UNIX_FORMS.contains(&form) && !content.is_empty() => None,
        _ => wrong(&format!("it must be one of {}", UNIX_FORMS.map(|form| format!("unix:{form}:...")).join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_can_give_is_told_and_what_something_gives_is_not() {
        let doubt = |text: &str, of: fn(&Selector) -> Option<String>| of(&text.parse().expect("selector"));
        for good in [
            "tpm2:label:site:berlin",
            "tpm2:serial:SN-1",
            "tpm2:pcr:sha256:7:00",
            "tpm2:key:resident",
            "tpm2:fw:1",
            "tpm2:policy:golden",
            "tpm2:weakness:none",
            "tpm2:secureboot:on",
        ] {
            assert_eq!(doubt(good, never_of_a_node), None, "{good}");
        }
        let good_unix = format!("unix:sha256:{}", "0a".repeat(32));
        for good in ["unix:uid:1000", "unix:user:web", "unix:path:/bin/x", "systemd:id:web.service", &good_unix] {
            assert_eq!(doubt(good, never_of_a_workload), None, "{good}");
        }
        assert_eq!(doubt("oidc:sub:repo:a/b:ref:refs/heads/main", never_of_a_token), None);
        for bad in ["oidc:sub", "oidc:sub:", "oidc::x", "unix:uid:1", "sub:repo:a/b"] {
            assert!(doubt(bad, never_of_a_token).is_some_and(|told| told.contains("oidc:<claim>:<value>")), "{bad}");
        }
        for (bad, advice) in [
            ("tpm2:label:site=berlin", "write tpm2:label:site:berlin"),
            ("tpm2:label:site", "write tpm2:label:<name>:<value>"),
            ("tpm2:site:berlin", "it must be one of"),
            ("unix:uid:1", "is a process's"),
            ("label:site:berlin", "of type tpm2"),
        ] {
            assert!(doubt(bad, never_of_a_node).is_some_and(|told| told.contains(advice)), "{bad}");
        }
        for (bad, advice) in [
            ("uid:1", "did you mean unix:uid:1?"),
            ("unix:uuid:1", "it must be one of unix:uid:..."),
            ("unix:uid:web", "an ID is a number"),
            ("unix:uid:01", "an ID is a number"),
            ("unix:path:bin/x", "begins with /"),
            ("unix:sha256:ABC", "64 digits"),
            ("k8s:ns:x", "only SPIRE's agents"),
            ("tpm2:label:site:berlin", "create that entry with -node"),
            ("colour:red", "of type unix"),
        ] {
            assert!(doubt(bad, never_of_a_workload).is_some_and(|told| told.contains(advice)), "{bad}");
        }
    }
}
