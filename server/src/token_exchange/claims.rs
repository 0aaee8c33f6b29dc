//! Claims of a token as selectors, which entries ask for: `oidc:CLAIM:VALUE`.

use ironroot_attest::{Selector, SelectorSet};
use serde_json::{Map, Value};

/// The type of selectors that come from a token.
pub const SELECTOR_TYPE: &str = "oidc";

/// One for each claim that is a text, a number or a truth value, and for each such member of a list. A claim whose name has a colon is left
/// out, since `a:b` with `c` would read as `a` with `b:c`; so is what lies deeper, and what no entry can ask for (empty, too long, with
/// control characters).
pub fn selectors(claims: &Map<String, Value>) -> SelectorSet {
    let named = claims.iter().filter(|(name, _)| !name.contains(':'));
    named.flat_map(|(name, value)| values(value).filter_map(|value| selector(name, &value))).collect()
}

fn selector(name: &str, value: &str) -> Option<Selector> {
    let has_both = !name.is_empty() && !value.is_empty();
    has_both.then(|| Selector::new(SELECTOR_TYPE, &format!("{name}:{value}")).ok()).flatten()
}

fn values(value: &Value) -> impl Iterator<Item = String> {
    let several = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    several.iter().filter_map(|value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(claims: &Value) -> Vec<String> {
        selectors(claims.as_object().expect("an object")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn plain_claims_and_members_of_lists_are_selectors() {
        let claims = json!({
            "sub": "repo:acme/app:ref:refs/heads/main", "ref_protected": true, "run_attempt": 2, "groups": ["a", "b", 3, ["c"]]
        });
        let wanted = [
            "oidc:groups:3",
            "oidc:groups:a",
            "oidc:groups:b",
            "oidc:ref_protected:true",
            "oidc:run_attempt:2",
            "oidc:sub:repo:acme/app:ref:refs/heads/main",
        ];
        assert_eq!(of(&claims), wanted);
    }

    #[test]
    fn what_could_be_read_in_two_ways_or_asked_for_by_nobody_is_left_out() {
        let claims = json!({
            "a:b": "c", "": "x", "empty": "", "null": null, "deep": { "a": "b" }, "control": "a\nb", "long": "x".repeat(5000)
        });
        assert_eq!(of(&claims), [""; 0]);
    }
}
