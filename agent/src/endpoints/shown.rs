//! Selectors as people are shown them.

use ironroot_attest::Selector;
use ironroot_shell::logging::clipped;

/// Of these selectors the value is a container's environment, in which passwords are.
const ENVIRONMENT: &str = "env:";
/// What stands in the place of such a value.
const LEFT_OUT: &str = "...";

/// The selector, but of a container's environment the variable's name alone: neither logs nor other users of the container read what its
/// owner set.
pub(super) fn shown(selector: &Selector) -> String {
    let variable = (selector.kind() == "docker").then(|| selector.value().strip_prefix(ENVIRONMENT)).flatten();
    let name = variable.map(|variable| variable.split_once('=').map_or(variable, |(name, _)| name));
    let text = name.map_or_else(|| selector.to_string(), |name| format!("docker:{ENVIRONMENT}{name}={LEFT_OUT}"));
    clipped(&text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_containers_environment_only_names_are_shown() {
        for (text, expected) in [
            ("docker:env:PASSWORD=hunter=2", "docker:env:PASSWORD=..."),
            ("docker:env:EMPTY", "docker:env:EMPTY=..."),
            ("docker:label:env:x=1", "docker:label:env:x=1"),
            ("unix:uid:7", "unix:uid:7"),
        ] {
            assert_eq!(shown(&text.parse().expect("legal")), expected);
        }
    }
}
