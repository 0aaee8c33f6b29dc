//! `NodeAttestor "http_challenge"`.

use std::sync::Arc;

use ironroot_attest::node::http_challenge::FIRST_USER_PORT;
use ironroot_shell::settings::Section;
use regex::{Regex, RegexBuilder};

use super::PROGRAM;
use crate::node_attestation::{Attestor, HttpChallengePolicy, Ports};

/// Longest pattern accepted, bytes.
const MAX_PATTERN_BYTES: usize = 1024;
/// Largest that a pattern may become when it is compiled, bytes.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// Which hosts attest, and how they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpChallengeConfig {
    /// Patterns of names, legal ones; none: every name may.
    pub allowed_dns_patterns: Vec<String>,
    /// Ports that they may answer at.
    pub ports: Ports,
    /// Whether a name attests once.
    pub tofu: bool,
}

impl HttpChallengeConfig {
    pub(super) fn load(&self) -> Attestor {
        let names = self.allowed_dns_patterns.iter().filter_map(|pattern| compile(pattern).ok()).collect();
        let questions = Arc::default();
        let policy = HttpChallengePolicy { names, ports: self.ports, first_use: self.tofu, questions };
        Attestor::HttpChallenge(Arc::new(policy))
    }
}

/// What `NodeAttestor "http_challenge"` is told.
pub(super) fn read(data: &Section<'_>) -> Option<HttpChallengeConfig> {
    let patterns = data.parsed_list("allowed_dns_patterns", |pattern| compile(pattern).map(|_| pattern.to_owned()));
    if !data.has("allowed_dns_patterns") {
        data.warn(
            "allowed_dns_patterns",
            "is not set: whoever reaches this server can have it ask any host that it reaches, and attest under that host's name",
        );
    }
    let required = data.has("required_port").then(|| data.port("required_port", 0)).flatten();
    let user_ports = data.boolean("allow_non_root_ports");
    let tofu = data.boolean("tofu").unwrap_or(true);
    data.not_supported(PROGRAM, &["agent_path_template"]);
    data.finish();
    let ports = match (required, user_ports.unwrap_or(true)) {
        (Some(port), true) => Ports::Only(port),
        (Some(port), false) => Ports::OnlyOfRoot(port),
        (None, true) => Ports::All,
        (None, false) => Ports::OfRoot,
    };
    if !tofu && !are_of_root(ports) {
        data.mistake("tofu", "you can not turn off trust on first use (TOFU) when non-root ports are allowed: set allow_non_root_ports = false, or a required_port below 1024");
    }
    if matches!(ports, Ports::OnlyOfRoot(port) if port >= FIRST_USER_PORT) {
        data.mistake("required_port", "is not below 1024, and allow_non_root_ports is false: nobody could attest");
    }
    Some(HttpChallengeConfig { allowed_dns_patterns: patterns.unwrap_or_default(), ports, tofu })
}

/// Whether only root opens them.
fn are_of_root(ports: Ports) -> bool {
    match ports {
        Ports::All => false,
        Ports::OfRoot => true,
        Ports::Only(port) | Ports::OnlyOfRoot(port) => port < FIRST_USER_PORT,
    }
}

/// As Go's, but for what no linear time can match; neither has that.
fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!("longer than {MAX_PATTERN_BYTES} bytes"));
    }
    RegexBuilder::new(pattern).size_limit(MAX_COMPILED_BYTES).build().map_err(|error| {
        let error = error.to_string();
        let last = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("cannot be used as a pattern: {last}")
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ironroot_shell::settings::Settings;

    use super::*;

    fn read_from(data: &str) -> Result<HttpChallengeConfig, String> {
        let text = format!("plugins {{ NodeAttestor \"http_challenge\" {{ plugin_data {{\n{data}\n}} }} }}\n");
        let settings = Settings::parse(Path::new("server.conf"), &text).expect("HCL");
        let read_all = |root: &Section<'_>| {
            let plugins = root.block("plugins");
            let plugin = plugins.plugins("NodeAttestor").into_iter().next()?;
            read(&plugin.data)
        };
        settings.check(read_all).map(|checked| checked.value).map_err(|errors| errors.to_string())
    }

    #[test]
    fn keys_are_spires_and_trust_at_first_use_stays_where_users_open_the_port() {
        let plain = read_from("").expect("defaults");
        assert_eq!((plain.ports, plain.tofu, plain.allowed_dns_patterns.len()), (Ports::All, true, 0));
        let all = "allowed_dns_patterns = [\"p[0-9]\\\\.example\\\\.com\"] required_port = 80 allow_non_root_ports = false tofu = false";
        let config = read_from(all).expect("legal");
        assert_eq!((config.ports, config.tofu), (Ports::OnlyOfRoot(80), false));
        assert!(matches!(config.load(), Attestor::HttpChallenge(policy) if policy.names[0].is_match("p1.example.com")));
        assert_eq!(read_from("required_port = 80 tofu = false").expect("root's").ports, Ports::Only(80));
        assert_eq!(read_from("allow_non_root_ports = false tofu = false").expect("root's").ports, Ports::OfRoot);
        for (data, expected) in [
            ("tofu = false", "you can not turn off trust on first use"),
            ("allow_non_root_ports = true tofu = false", "you can not turn off"),
            ("required_port = 8080 tofu = false", "you can not turn off"),
            ("required_port = 8080 allow_non_root_ports = false", "nobody could attest"),
            ("allowed_dns_patterns = [\"(\"]", "cannot be used as a pattern: unclosed group"),
            ("allowed_dns_patterns = [\"a{1000}{1000}{1000}\"]", "cannot be used as a pattern"),
            ("agent_path_template = \"/x\"", "agent_path_template: not supported"),
            ("ports = 1", "ports: unknown key"),
        ] {
            let refused = read_from(data).expect_err(data);
            assert!(refused.contains(expected), "{data}: {refused}");
        }
    }
}
