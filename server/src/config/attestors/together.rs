//! `together_with`: what else a device must prove. What is named there proves nothing by itself, unless its own block says `alone`.

use ironroot_attest::node::together::MAX_PARTS;
use ironroot_shell::settings::{Plugin, Section};

/// A way to attest, and those that must be proven with it: by their attestation types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TogetherConfig {
    /// Who says what the agent is called.
    pub first: String,
    /// At least one.
    pub others: Vec<String>,
}

/// What the plugin says of others, if it says anything. `known`: the attestation types of this server that may be proven with others.
pub(super) fn read(plugin: &Plugin<'_>, known: &[&str]) -> Option<TogetherConfig> {
    let (data, key) = (&plugin.data, "together_with");
    let may = |text: &str| match known.contains(&text) && text != plugin.name {
        true => Ok(text.to_owned()),
        false => Err(format!("name others of {}", known.join(", "))),
    };
    let others = data.parsed_list(key, may)?;
    let is_twice = (1..others.len()).any(|at| others[..at].contains(&others[at]));
    if is_twice || others.len() >= MAX_PARTS {
        data.mistake(key, format!("name each once, at most {} of them", MAX_PARTS - 1));
    }
    let shown: Vec<&str> = std::iter::once(plugin.name.as_str())
        .chain(others.iter().map(String::as_str))
        .filter(|name| shows_certificate(name))
        .collect();
    if let [one, other, ..] = shown[..]
        && one != other
    {
        let why = "a ban, and that a certificate is one agent's, would hold for the first alone";
        data.mistake(
            key,
            format!("{one} and {other} both show a certificate of the device's: {why}; name one of them"),
        );
    }
    (!others.is_empty()).then(|| TogetherConfig { first: plugin.name.clone(), others })
}

/// Ways that prove a certificate which somebody gave the device. An agent is stored with one.
fn shows_certificate(name: &str) -> bool {
    matches!(name, "x509pop" | "sshpop" | "tpm_devid")
}

/// Whether the plugin says that it counts alone, too, though another names it.
pub(super) fn read_alone(plugin: &Plugin<'_>) -> bool {
    plugin.data.boolean("alone").unwrap_or(false)
}

/// Each that is named must have been told whom it believes: join tokens alone need no block of their own.
pub(super) fn check(plugins: &Section<'_>, together: &[TogetherConfig], configured: &[&str]) {
    for name in together.iter().flat_map(|config| &config.others) {
        if name != "join_token" && !configured.contains(&name.as_str()) {
            plugins.mistake(
                "NodeAttestor",
                format!("together_with names {name:?}: add NodeAttestor {name:?} with what it needs"),
            );
        }
    }
}
