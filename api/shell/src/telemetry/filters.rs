//! Which metrics are shown, and which of their labels. Source: hashicorp/go-metrics, `UpdateFilterAndLabels`, `allowMetric`.

use crate::settings::Section;

/// See the module. The default: all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Beginnings of names, parts and dots between them, and whether what begins so is shown.
    prefixes: Vec<(String, bool)>,
    allowed_labels: Option<Vec<String>>,
    blocked_labels: Vec<String>,
}

impl Filters {
    /// Reads SPIRE's `AllowedPrefixes`, `BlockedPrefixes`, `AllowedLabels` and `BlockedLabels`.
    pub(super) fn read(section: &Section<'_>) -> Self {
        let list = |key| section.parsed_list(key, of_characters);
        let allowed = list("AllowedPrefixes").unwrap_or_default().into_iter().map(|prefix| (prefix, true));
        let blocked = list("BlockedPrefixes").unwrap_or_default().into_iter().map(|prefix| (prefix, false));
        Self {
            prefixes: allowed.chain(blocked).collect(),
            allowed_labels: list("AllowedLabels"),
            blocked_labels: list("BlockedLabels").unwrap_or_default(),
        }
    }

    /// Whether the metric of that name is shown: as the longest prefix says that it begins with, of two equal ones the blocked; one that
    /// begins with none of them is.
    pub(super) fn shows(&self, name: &str) -> bool {
        let fitting = self.prefixes.iter().filter(|(prefix, _)| name.starts_with(prefix.as_str()));
        fitting.max_by_key(|(prefix, _)| prefix.len()).is_none_or(|(_, is_shown)| *is_shown)
    }

    /// Whether the label of that name is: not if it is blocked, nor if others are allowed.
    pub(super) fn shows_label(&self, name: &str) -> bool {
        let has = |labels: &[String]| labels.iter().any(|label| label == name);
        !has(&self.blocked_labels) && self.allowed_labels.as_deref().is_none_or(has)
    }
}

/// Names have dots between their parts; what has none of their characters is a name of nothing.
fn of_characters(text: &str) -> Result<String, &'static str> {
    match text.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c)) {
        true => Ok(text.to_owned()),
        false => Err("names have letters, digits and '_', and '.' between their parts, such as spire_server.rpc"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::Settings;
    use crate::telemetry::{Kind, Page};

    fn filters(text: &str) -> Filters {
        let settings = Settings::parse(Path::new("x.conf"), text).expect("HCL");
        settings.check(|root| Some(Filters::read(root))).expect("sound").value
    }

    // Vectors: go-metrics, metrics_test.go, Test_MetricFilter and TestMetrics_Filter_Labels.
    #[test]
    fn the_longest_prefix_decides_and_of_two_equal_ones_the_blocked() {
        let nested = filters(
            "AllowedPrefixes = [\"service\", \"debug.thing\", \"twice\"] \
             BlockedPrefixes = [\"debug\", \"service.bad\", \"twice\"]",
        );
        for (name, is_shown) in [
            ("debug.thing", true),
            ("debug.other.thing", false),
            ("service.yes", true),
            ("service.bad.no", false),
            ("twice.x", false),
            // Of what no prefix speaks is shown, whatever else is allowed.
            ("other", true),
        ] {
            assert_eq!(nested.shows(name), is_shown, "{name}");
        }
    }

    #[test]
    fn a_label_is_shown_unless_it_is_blocked_or_others_are_allowed() {
        let blocked = filters("BlockedLabels = [\"host\"]");
        assert!(!blocked.shows_label("host") && blocked.shows_label("status"));
        let allowed = filters("AllowedLabels = [\"host\", \"status\"] BlockedLabels = [\"host\"]");
        assert!(!allowed.shows_label("host") && allowed.shows_label("status") && !allowed.shows_label("kind"));
        assert!(!filters("AllowedLabels = []").shows_label("host") && filters("").shows_label("host"));
    }

    #[test]
    fn series_that_only_a_blocked_label_told_apart_are_one() {
        let constants = [("host", "h".to_owned())];
        let mut page = Page::new("spire_server", "ironroot_server", &constants);
        page = page.filtered(filters("BlockedLabels = [\"status\", \"host\"] BlockedPrefixes = [\"ironroot_server\"]"));
        let mut calls = page.spire("rpc.x", Kind::Counter, "Calls");
        calls.sample(&[("kind", "a"), ("status", "OK")], 2.0);
        calls.sample(&[("kind", "a"), ("status", "Unknown")], 3.0);
        page.spire("g", Kind::Gauge, "G").sample(&[("status", "a")], 1.0);
        page.own("agents", Kind::Gauge, "Agents").sample(&[], 2.0);
        let text = page.into_text();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, ["spire_server_rpc_x{kind=\"a\"} 5", "spire_server_g 1"]);
    }

    #[test]
    fn what_is_no_name_is_a_mistake() {
        let settings = Settings::parse(Path::new("x.conf"), "BlockedPrefixes = [\"a b\", \"a.b\"]").expect("HCL");
        let told = settings.check(|root| Some(Filters::read(root))).expect_err("a mistake").to_string();
        assert!(told.starts_with("x.conf:1: BlockedPrefixes: \"a b\": names have letters"), "{told}");
    }
}
