//! A plan, and what became of it, for people and for programs.

use std::fmt::Write;

use ironroot_api::pb::types::{Entry, Status};
use ironroot_shell::command_line::{Reply, code_name};
use serde_json::{Value, json};
use tonic::Code;

use super::plan::{Change, Plan, name};
use crate::cli::messages;

/// What became of a plan.
pub(super) enum Outcome {
    /// Nothing was changed: nobody wanted it, or there are conflicts.
    NotDone,
    /// It was carried out; these entries were refused.
    Done(Vec<(String, Status)>),
}

/// Fails if the server is not what the file says.
pub(super) fn reply(plan: &Plan, outcome: Outcome) -> Reply {
    let mut reply = Reply { json: to_json(plan), text: describe(plan), ..Reply::default() };
    let done = matches!(outcome, Outcome::Done(_));
    let failures = if let Outcome::Done(failures) = outcome { failures } else { Vec::new() };
    reply.text.push_str(&summary(plan, done));
    plan.conflicts.iter().for_each(|told| line(&mut reply.complaints, format_args!("conflict: {told}")));
    for (entry, status) in &failures {
        let code = code_name(Code::from(status.code));
        line(&mut reply.complaints, format_args!("failed: {entry} (code: {code}, msg: {:?})", status.message));
    }
    if !plan.conflicts.is_empty() {
        reply.complaints.push_str("Error: nothing was changed\n");
    }
    reply.failed = !failures.is_empty() || !plan.conflicts.is_empty() || (!done && plan.differs());
    let failed =
        |(entry, status): &(String, Status)| json!({ "entry": entry, "code": status.code, "message": status.message });
    reply.json["failed"] = failures.iter().map(failed).collect();
    reply.json["applied"] = done.into();
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

fn summary(plan: &Plan, done: bool) -> String {
    let (create, change, delete) = (plan.create.len(), plan.change.len(), plan.delete.len());
    let rest = format!("{} as they are to be", plan.unchanged);
    match done {
        true => format!("Created {create}, changed {change}, deleted {delete}; {rest}\n"),
        false => format!("{create} to create, {change} to change, {delete} to delete; {rest}\n"),
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
    writeln!(text, "{told}").expect("writing to a string cannot fail");
}
