//! Selectors that no attestor of this project produces: an entry that asks for one never matches. Told, never refused: a SPIRE
//! agent with other plugins may serve the same server.

use ironroot_attest::Selector;

use crate::token_exchange::SELECTOR_TYPE;

/// Selectors of devices by the attestor that gives them: how what stands behind the type begins, or is where no colon ends it. Source:
/// `ironroot_attest::node`, [`crate::facts::device`], `docs/server.conf`.
const OF_DEVICES: [(&str, &[&str]); 6] = [
    (
        "tpm2",
        &[
            "ek:sha256:",
            "ek:issuer:cn:",
            "fw:",
            "key:resident",
            "pcr:",
            "secureboot:",
            "debug:off",
            "policy:",
            "ima:",
            "weakness:",
            "manufacturer:",
            "model:",
            "serial:",
            "label:",
        ],
    ),
    ("x509pop", &["subject:cn:", "serialnumber:", "ca:fingerprint:", "san:"]),
    ("tpm_devid", &["subject:cn:", "issuer:cn:", "ca:fingerprint:"]),
    ("tpm", &["pub_hash:"]),
    ("http_challenge", &["hostname:"]),
    ("together", &[""]),
];
/// The same of processes, but for those of type unix. `ironroot` is no process's: gateways ask for their CA by it, and entries for keys in
/// hardware. Source:
/// `ironroot_attest::workload`, `docs/agent.conf`.
const OF_PROCESSES: [(&str, &[&str]); 5] = [
    ("systemd", &["id:", "fragment_path:"]),
    ("docker", &["label:", "env:", "image_id:", "image_config_digest:"]),
    (
        "k8s",
        &[
            "ns:",
            "sa:",
            "pod-name:",
            "pod-uid:",
            "pod-label:",
            "pod-owner:",
            "pod-owner-uid:",
            "pod-image:",
            "pod-image-count:",
            "pod-init-image:",
            "pod-init-image-count:",
            "node-name:",
            "container-name:",
            "container-image:",
        ],
    ),
    ("ironroot", &["local_authority", "hardware_key"]),
    ("spiffe_id", &[""]),
];
/// What the unix attestor gives; each is also the name under which people look for it.
const UNIX_FORMS: [&str; 10] = [
    "uid",
    "gid",
    "user",
    "group",
    "supplementary_gid",
    "supplementary_group",
    "path",
    "sha256",
    "fs_verity",
    "cgroup",
];
/// Types of processes that SPIRE's agents produce with plugins that ours do not have, or in more forms than ours.
const SPIRES_TYPES: [&str; 4] = ["k8s", "docker", "windows", "slurm"];

/// Why a node entry with this selector matches no device of ours, if so.
pub fn never_of_a_node(selector: &Selector) -> Option<String> {
    let (kind, value) = (selector.kind(), selector.value());
    match forms_of(kind, &OF_DEVICES) {
        Some(_) if kind == "tpm2" && value.starts_with("label:") => label_doubt(value),
        Some(forms) => (!has_form(value, forms)).then(|| {
            format!("no device gives {selector}: what stands behind {kind}: must be one of {}", forms.join(", "))
        }),
        None if kind == "unix" => {
            Some(format!("{selector} is a process's: an entry for devices (-node) never matches by it"))
        }
        None if is_of_processes(kind) => Some(format!("{selector} is a process's, not a device's")),
        None => Some(format!(
            "no node attestor here gives selectors of type {kind:?}; those of devices are of type {}",
            OF_DEVICES.map(|(kind, _)| kind).join(", ")
        )),
    }
}

/// Why an entry for workloads with this selector matches no process of ours, if so.
pub fn never_of_a_workload(selector: &Selector) -> Option<String> {
    let (kind, value) = (selector.kind(), selector.value());
    if kind == "unix" {
        return unix_doubt(value);
    }
    match forms_of(kind, &OF_PROCESSES) {
        Some(forms) if has_form(value, forms) => None,
        _ if SPIRES_TYPES.contains(&kind) => {
            Some(format!("only SPIRE's agents with the {kind} plugin give {selector}"))
        }
        Some(forms) => Some(format!("nothing gives {selector}: it must be one of {}", of_type(kind, forms))),
        None if forms_of(kind, &OF_DEVICES).is_some() => {
            Some(format!("{selector} is a device's: create that entry with -node, and this one below it"))
        }
        None if UNIX_FORMS.contains(&kind) => {
            Some(format!("no attestor gives {selector}: did you mean unix:{selector}?"))
        }
        None => Some(format!(
            "no workload attestor here gives selectors of type {kind:?}; those of processes are of type unix, systemd, docker or k8s"
        )),
    }
}

fn forms_of(kind: &str, types: &[(&str, &'static [&'static str])]) -> Option<&'static [&'static str]> {
    types.iter().find(|(of, _)| *of == kind).map(|(_, forms)| *forms)
}

fn is_of_processes(kind: &str) -> bool {
    forms_of(kind, &OF_PROCESSES).is_some() || SPIRES_TYPES.contains(&kind)
}

fn has_form(value: &str, forms: &[&str]) -> bool {
    let is_of = |form: &str| match form.is_empty() || form.ends_with(':') {
        true => value.len() > form.len() && value.starts_with(form),
        false => value == form,
    };
    forms.iter().any(|form| is_of(form))
}

fn of_type(kind: &str, forms: &[&str]) -> String {
    forms.iter().map(|form| format!("{kind}:{form}")).collect::<Vec<_>>().join(", ")
}

/// Why an entry for tokens of other issuers with this selector matches none, if so.
pub fn never_of_a_token(selector: &Selector) -> Option<String> {
    let has_both =
        selector.value().split_once(':').is_some_and(|(claim, value)| !claim.is_empty() && !value.is_empty());
    let is_of_a_token = selector.kind() == SELECTOR_TYPE && has_both;
    (!is_of_a_token).then(|| format!("no token gives {selector}: write {SELECTOR_TYPE}:<claim>:<value>"))
}

fn label_doubt(value: &str) -> Option<String> {
    let label = value.strip_prefix("label:")?;
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
    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match form {
        "uid" | "gid" | "supplementary_gid" if !is_number() => {
            wrong("an ID is a number; names are unix:user and unix:group")
        }
        "path" | "cgroup" if !content.starts_with('/') => wrong("a path begins with /"),
        "sha256" if !is_hash(content) => wrong("a SHA-256 is 64 digits of 0-9 and a-f"),
        "fs_verity" if !content.strip_prefix("sha256:").is_some_and(is_hash) => {
            wrong("write unix:fs_verity:sha256:<64 digits of 0-9 and a-f>, as \"fsverity digest FILE\" prints them")
        }
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
            "tpm2:ima:gateway",
            "x509pop:subject:cn:gw-1",
            "x509pop:san:role:edge",
            "tpm_devid:issuer:cn:maker",
            "tpm:pub_hash:00",
            "http_challenge:hostname:p1.example.com",
            "together:tpm2+join_token",
        ] {
            assert_eq!(doubt(good, never_of_a_node), None, "{good}");
        }
        let good_unix = format!("unix:sha256:{}", "0a".repeat(32));
        let good_verity = format!("unix:fs_verity:sha256:{}", "0a".repeat(32));
        for good in ["unix:uid:1000", "unix:user:web", "unix:path:/bin/x", "systemd:id:web.service", &good_unix]
            .into_iter()
            .chain([good_verity.as_str()])
            .chain(["unix:cgroup:/system.slice/app.service", "docker:label:app:web", "k8s:pod-label:app:web"])
            .chain([
                "systemd:fragment_path:/lib/systemd/system/app.service",
                "ironroot:local_authority",
                "ironroot:hardware_key",
            ])
        {
            assert_eq!(doubt(good, never_of_a_workload), None, "{good}");
        }
        assert_eq!(doubt("oidc:sub:repo:a/b:ref:refs/heads/main", never_of_a_token), None);
        for bad in ["oidc:sub", "oidc:sub:", "oidc::x", "unix:uid:1", "sub:repo:a/b"] {
            assert!(doubt(bad, never_of_a_token).is_some_and(|told| told.contains("oidc:<claim>:<value>")), "{bad}");
        }
        for (bad, advice) in [
            ("tpm2:label:site=berlin", "write tpm2:label:site:berlin"),
            ("tpm2:label:site", "write tpm2:label:<name>:<value>"),
            ("tpm2:site:berlin", "must be one of ek:sha256:, "),
            ("x509pop:cn:gw", "must be one of subject:cn:, "),
            ("tpm2:serial:", "must be one of"),
            ("docker:label:a:b", "is a process's"),
            ("aws_iid:tag:a:b", "of type tpm2, x509pop"),
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
            ("unix:fs_verity:sha256:ABC", "as \"fsverity digest FILE\" prints them"),
            (&format!("unix:fs_verity:sha512:{}", "0a".repeat(64)), "write unix:fs_verity:sha256:"),
            (&format!("unix:fs_verity:{}", "0a".repeat(32)), "write unix:fs_verity:sha256:"),
            ("unix:cgroup:app", "begins with /"),
            ("k8s:image-signature-subject:x", "only SPIRE's agents"),
            ("windows:user_name:x", "only SPIRE's agents"),
            ("systemd:unit:web.service", "it must be one of systemd:id:, "),
            ("ironroot:ca", "it must be one of ironroot:local_authority, ironroot:hardware_key"),
            ("tpm2:label:site:berlin", "create that entry with -node"),
            ("x509pop:subject:cn:gw", "create that entry with -node"),
            ("colour:red", "of type unix"),
        ] {
            assert!(doubt(bad, never_of_a_workload).is_some_and(|told| told.contains(advice)), "{bad}");
        }
    }

    /// What the documents say to type: a warning beside it would have people believe the warning.
    #[test]
    fn no_selector_that_the_documents_show_is_doubted() {
        let documents = [
            include_str!("../../../README.md"),
            include_str!("../../../docs/handbook.md"),
            include_str!("../../../docs/workloads.md"),
            include_str!("../../../docs/device-image.md"),
        ];
        let commands = documents.iter().flat_map(|text| text.split("entry create ").skip(1));
        let mut looked_at = 0;
        for command in commands {
            let command = command.replace("\\\n", " ");
            let words: Vec<&str> = command.lines().next().unwrap_or_default().split(['`', ' ']).collect();
            let is_of_tokens = words.iter().any(|word| word.contains("/spire/exchange/"));
            let doubt = match (words.contains(&"-node"), is_of_tokens) {
                (true, _) => never_of_a_node,
                (false, true) => never_of_a_token,
                (false, false) => never_of_a_workload,
            };
            for selector in words.windows(2).filter(|pair| pair[0] == "-selector").map(|pair| pair[1]) {
                let Ok(selector) = selector.parse() else { continue };
                assert_eq!(doubt(&selector), None, "entry create {command:.200}");
                looked_at += 1;
            }
        }
        assert!(looked_at > 8, "the documents have commands: {looked_at}");
    }
}
