//! How far the server is from a file, as Prometheus' node_exporter takes it from a file of its textfile collector.

use ironroot_shell::telemetry::{Kind, Page};

use super::owner::Owner;
use super::plan::Plan;

/// A page of what would have to be done, and when that was found out, UNIX seconds.
pub(super) fn metrics(plan: &Plan, owner: Option<&Owner>, now_unix: i64) -> String {
    let owner = owner.map(Owner::name).unwrap_or_default().to_owned();
    let mut page = Page::new("", "ironroot_entries", &[("owner", owner)]);
    let help = "Entries of the server that are not as their file says, by what would have to be done";
    let mut drift = page.own("drift", Kind::Gauge, help);
    for (todo, entries) in [
        ("create", plan.create.len()),
        ("change", plan.change.len()),
        ("delete", plan.delete.len() + plan.left_over.len()),
        ("resolve", plan.conflicts.len()),
    ] {
        drift.sample(&[("todo", todo)], entries as f64);
    }
    let help = "When the server was last held against the file, UNIX seconds";
    page.own("compared_timestamp_seconds", Kind::Gauge, help).sample(&[], now_unix as f64);
    page.into_text()
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::types::Entry;

    use super::*;

    #[test]
    fn what_would_be_done_is_counted_by_owner_and_whose_the_rest_is_by_nobodys() {
        let plan = Plan {
            create: vec![Entry::default(); 2],
            delete: vec![Entry::default()],
            left_over: vec![Entry::default()],
            conflicts: vec!["x".into()],
            ..Plan::default()
        };
        let owner = "team".parse().expect("legal");
        let wanted = "# HELP ironroot_entries_drift Entries of the server that are not as their file says, by what would have to be done
# TYPE ironroot_entries_drift gauge
ironroot_entries_drift{owner=\"team\",todo=\"create\"} 2
ironroot_entries_drift{owner=\"team\",todo=\"change\"} 0
ironroot_entries_drift{owner=\"team\",todo=\"delete\"} 2
ironroot_entries_drift{owner=\"team\",todo=\"resolve\"} 1
# HELP ironroot_entries_compared_timestamp_seconds When the server was last held against the file, UNIX seconds
# TYPE ironroot_entries_compared_timestamp_seconds gauge
ironroot_entries_compared_timestamp_seconds{owner=\"team\"} 1795000000
";
        assert_eq!(metrics(&plan, Some(&owner), 1_795_000_000), wanted);
        assert!(metrics(&plan, None, 0).contains("{owner=\"\",todo=\"create\"} 2"));
    }
}
