//! A plan, and what became of it, for people and for programs.

use std::fmt::Write;

use ironroot_api::pb::types::{Entry, Status};
use ironroot_shell::command_line::{Reply, code_name, shown};
use serde_json::{Value, json};
use tonic::Code;

use super::plan::{Change, Plan, name};
use crate::cli::messages;

/// What became of a plan.
pub(super) enum Outcome {
    /// Nothing was changed: nobody wanted it, or there are conflicts.
    NotDone,
    /// It was carried out, as far as this says.
    Done(Done),
}

/// What was done.
#[derive(Default)]
pub(super) struct Done {
    pub created: usize,
    pub changed: usize,
    pub deleted: usize,
    /// Entries that were to be deleted and were not, since something before had failed.
    pub kept: usize,
    /// Entries that were refused, or of which the server said nothing.
    pub failures: Vec<(String, Status)>,
}

impl Done {
    /// Takes in what the server said of a batch; how many of it were done. Where there is no answer none counts as done.
    pub(super) fn note(
        &mut self,
        names: impl ExactSizeIterator<Item = String>,
        answer: Result<Vec<Option<Status>>, tonic::Status>,
    ) -> usize {
        let all = names.len();
        let statuses = answer.unwrap_or_else(|status| {
            let status = Status { code: status.code().into(), message: status.message().to_owned() };
            vec![Some(status); all]
        });
        let before = self.failures.len();
        let failed = names.zip(statuses).filter_map(|(name, status)| Some((name, status.filter(|s| s.code != 0)?)));
        self.failures.extend(failed);
        all - (self.failures.len() - before)
    }
}

/// Fails if the server is not what the file says.
pub(super) fn reply(plan: &Plan, outcome: Outcome) -> Reply {
    let mut reply = Reply { json: to_json(plan), text: describe(plan), ..Reply::default() };
    let done = if let Outcome::Done(done) = outcome { Some(done) } else { None };
    reply.text.push_str(&summary(plan, done.as_ref()));
    let is_done = done.is_some();
    let Done { failures, kept, .. } = done.unwrap_or_default();
    plan.conflicts.iter().for_each(|told| line(&mut reply.complaints, format_args!("conflict: {told}")));
    for (entry, status) in &failures {
        let code = code_name(Code::from(status.code));
        line(&mut reply.complaints, format_args!("failed: {entry} (code: {code}, msg: {:?})", status.message));
    }
    if !plan.conflicts.is_empty() {
        reply.complaints.push_str("Error: nothing was changed\n");
    }
    if kept > 0 {
        line(&mut reply.complaints, format_args!("Error: nothing was deleted, since others failed ({kept} to delete)"));
    }
    reply.failed = !failures.is_empty() || !plan.conflicts.is_empty() || (!is_done && plan.differs());
    let failed =
        |(entry, status): &(String, Status)| json!({ "entry": entry, "code": status.code, "message": status.message });
    reply.json["failed"] = failures.iter().map(failed).collect();
    reply.json["applied"] = is_done.into();
    reply
}

fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    plan.create.iter().for_each(|entry| line(&mut text, format_args!("+ create {}", name(entry))));
    plan.change.iter().for_each(|change| describe_change(&mut text, change));
    plan.delete.iter().for_each(|entry| line(&mut text, format_args!("- delete {} [{}]", name(entry), entry.id)));
    for entry in &plan.left_over {
        line(&mut text, format_args!("? not in the file, and stays without -prune: {} [{}]", name(entry), entry.id));
    }
    text
}

fn describe_change(text: &mut String, change: &Change) {
    line(text, format_args!("~ change {} [{}]", name(&change.to), change.to.id));
    for (field, from, to) in &change.fields {
        line(text, format_args!("    {field}: {from} -> {to}"));
    }
}

fn summary(plan: &Plan, done: Option<&Done>) -> String {
    let rest = format!("{} as they are to be", plan.unchanged);
    match done {
        Some(Done { created, changed, deleted, .. }) => {
            format!("Created {created}, changed {changed}, deleted {deleted}; {rest}\n")
        }
        None => {
            let (create, change, delete) = (plan.create.len(), plan.change.len(), plan.delete.len());
            format!("{create} to create, {change} to change, {delete} to delete; {rest}\n")
        }
    }
}

fn to_json(plan: &Plan) -> Value {
    let entries = |entries: &[Entry]| -> Value { entries.iter().map(messages::entry).collect() };
    let field = |(field, from, to): &(String, Value, Value)| json!({ "field": field, "from": from, "to": to });
    let change = |change: &Change| json!({ "entry": messages::entry(&change.to), "fields": change.fields.iter().map(field).collect::<Value>() });
    json!({
        "create": entries(&plan.create),
        "change": plan.change.iter().map(change).collect::<Value>(),
        "delete": entries(&plan.delete),
        "left_over": entries(&plan.left_over),
        "conflicts": plan.conflicts,
        "unchanged": plan.unchanged,
        "differs": plan.differs(),
    })
}

fn line(text: &mut String, told: impl std::fmt::Display) {
    writeln!(text, "{}", shown(told)).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_or_not_answered_does_not_count_as_done() {
        let (mut done, names) = (Done::default(), ["a", "b"].map(str::to_owned));
        let refused = Status { code: 9, message: "no".to_owned() };
        assert_eq!(done.note(names.clone().into_iter(), Ok(vec![Some(Status::default()), Some(refused)])), 1);
        assert_eq!(done.note(names.into_iter(), Err(tonic::Status::unavailable("gone"))), 0);
        let failed: Vec<_> = done.failures.iter().map(|(name, status)| (name.as_str(), status.code)).collect();
        assert_eq!(failed, [("b", 9), ("a", 14), ("b", 14)]);
    }
}
