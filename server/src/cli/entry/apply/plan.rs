//! What has to be done for the server's entries to be those of a file. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};

use ironroot_api::TrustDomain;
use ironroot_api::pb::types::{Entry, Spiffeid};
use serde_json::{Map, Value};

use super::owner::Owner;
use crate::cli::entry::data_file::EntryOrMistakes;
use crate::cli::messages;
use crate::facts::entry::NewEntry;

/// What the server alone decides of an entry.
const NOT_COMPARED: [&str; 2] = ["revision_number", "created_at"];

/// What makes an entry that one and no other, unless one has been changed into what another is: then their IDs do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    spiffe_id: String,
    parent_id: String,
    /// Sorted.
    selectors: Vec<String>,
}

/// An entry that is another one than the file says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    pub to: Entry,
    /// What differs: the name of a field, what it is, what it is to be.
    pub fields: Vec<(String, Value, Value)>,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub create: Vec<Entry>,
    pub change: Vec<Change>,
    pub delete: Vec<Entry>,
    /// The owner's, and not in the file; they stay, since nobody asked to delete them.
    pub left_over: Vec<Entry>,
    /// Why nothing can be done, a sentence each.
    pub conflicts: Vec<String>,
    pub unchanged: usize,
}

/// The file's entries as the server would store them, with IDs if they have an owner. Errors: all that is wrong with any of them, a
/// sentence each.
pub(super) fn wanted(entries: Vec<EntryOrMistakes>, owner: Option<&Owner>) -> Result<Vec<Entry>, Vec<String>> {
    let (mut wanted, mut mistakes): (Vec<Entry>, Vec<String>) = (Vec::new(), Vec::new());
    let (mut by_key, mut by_id) = (HashMap::new(), HashMap::new());
    for (index, entry) in entries.into_iter().enumerate() {
        let number = index + 1;
        let mut entry = match entry.and_then(|entry| normal(&entry).map_err(|why| vec![why])) {
            Ok(entry) => entry,
            Err(all) => {
                mistakes.extend(all.iter().map(|why| format!("entry {number}: {why}")));
                continue;
            }
        };
        let (key, has_id) = (Key::of(&entry), !entry.id.is_empty());
        if let (true, Some(owner)) = (entry.id.is_empty(), owner) {
            entry.id = owner.id(&key);
        }
        if let Some((other, _)) = by_key.insert(key, (number, has_id)).filter(|(_, other)| !(has_id && *other)) {
            mistakes.push(format!("entry {number}: has the SPIFFE ID, parent and selectors of entry {other}"));
        } else if let Some(other) =
            Some(&entry.id).filter(|id| !id.is_empty()).and_then(|id| by_id.insert(id.clone(), number))
        {
            mistakes.push(format!("entry {number}: has the ID of entry {other}"));
        } else if owner.is_some_and(|owner| !owner.has(&entry.id)) {
            mistakes.push(format!("entry {number}: its ID {:?} is not one of the owner's: leave it out", entry.id));
        }
        wanted.push(entry);
    }
    if mistakes.is_empty() { Ok(wanted) } else { Err(mistakes) }
}

impl Plan {
    /// `wanted` is what [`wanted`] made of a file, `there` is what the server has.
    pub fn new(wanted: Vec<Entry>, there: Vec<Entry>, owner: Option<&Owner>, prune: bool) -> Self {
        let there: Vec<Entry> = there.into_iter().map(|entry| normal(&entry).unwrap_or(entry)).collect();
        let by_id: HashMap<&str, &Entry> = there.iter().map(|entry| (&*entry.id, entry)).collect();
        let mut by_key: HashMap<Key, Vec<&Entry>> = HashMap::new();
        there.iter().for_each(|entry| by_key.entry(Key::of(entry)).or_default().push(entry));
        let (mut plan, mut kept) = (Self::default(), HashSet::new());
        for mut entry in wanted {
            let all_same = by_key.get(&Key::of(&entry)).map(Vec::as_slice).unwrap_or_default();
            if let ([_, _, ..], true) = (all_same, entry.id.is_empty()) {
                plan.conflicts.push(several(&entry, all_same));
                continue;
            }
            let now = match &*entry.id {
                "" => all_same.first().copied(),
                id => by_id.get(id).copied(),
            };
            // Itself, if it is one of several.
            let itself = all_same.iter().find(|same| same.id == entry.id).copied();
            match (now, itself.or(all_same.first().copied())) {
                (None, None) => plan.create.push(entry),
                (None, Some(same)) => plan.conflicts.push(format!(
                    "{} is there already as entry {}, which this file does not have: delete that one, or give the entry its ID",
                    name(&entry),
                    same.id
                )),
                (Some(now), Some(same)) if now.id != same.id => plan.conflicts.push(format!(
                    "entry {} cannot become {}: entry {} is that already",
                    now.id,
                    name(&entry),
                    same.id
                )),
                (Some(now), _) => {
                    entry.id.clone_from(&now.id);
                    kept.insert(now.id.clone());
                    plan.hold_against(now, entry);
                }
            }
        }
        let owned = |entry: &&Entry| owner.is_some_and(|owner| owner.has(&entry.id));
        let gone = there.iter().filter(owned).filter(|entry| !kept.contains(&entry.id)).cloned();
        if prune {
            plan.delete.extend(gone)
        } else {
            plan.left_over.extend(gone)
        }
        plan
    }

    fn hold_against(&mut self, now: &Entry, to: Entry) {
        let fields = differences(now, &to);
        if fields.is_empty() {
            self.unchanged += 1;
        } else {
            self.change.push(Change { to, fields });
        }
    }

    /// Whether the server is not what the file says.
    pub fn differs(&self) -> bool {
        let Self { create, change, delete, left_over, conflicts, .. } = self;
        !(create.is_empty() && change.is_empty() && delete.is_empty() && left_over.is_empty() && conflicts.is_empty())
    }
}

impl Key {
    pub fn of(entry: &Entry) -> Self {
        let mut selectors: Vec<String> =
            entry.selectors.iter().map(|selector| format!("{}:{}", selector.r#type, selector.value)).collect();
        selectors.sort();
        selectors.dedup();
        Self { spiffe_id: id(entry.spiffe_id.as_ref()), parent_id: id(entry.parent_id.as_ref()), selectors }
    }

    /// All of it in one text, which no other key has.
    pub fn text(&self) -> String {
        serde_json::json!([self.spiffe_id, self.parent_id, self.selectors]).to_string()
    }
}

fn several(entry: &Entry, same: &[&Entry]) -> String {
    let ids: Vec<&str> = same.iter().map(|same| same.id.as_str()).collect();
    format!("{} is there more than once, as entries {}: give the entry its ID", name(entry), ids.join(", "))
}

/// What people call an entry.
pub(super) fn name(entry: &Entry) -> String {
    let Key { spiffe_id, parent_id, selectors } = Key::of(entry);
    format!("{spiffe_id} ({}, under {parent_id})", selectors.join(" "))
}

/// As the server stores it, without what it alone decides. Errors: what the server would refuse it for.
fn normal(entry: &Entry) -> Result<Entry, String> {
    let of = |id: Option<&Spiffeid>| id.map(|id| id.trust_domain.clone()).unwrap_or_default();
    let (trust_domain, of_parent) = (of(entry.spiffe_id.as_ref()), of(entry.parent_id.as_ref()));
    if trust_domain != of_parent {
        return Err(format!(
            "spiffe_id is of trust domain {trust_domain:?} and parent_id of {of_parent:?}: both are of the server's own"
        ));
    }
    let trust_domain = TrustDomain::new(&trust_domain).map_err(|error| error.to_string())?;
    let new = NewEntry::from_pb(entry, &trust_domain).map_err(|error| ironroot_shell::describe(&error))?;
    Ok(new.register(String::new(), 0).to_pb())
}

fn differences(now: &Entry, to: &Entry) -> Vec<(String, Value, Value)> {
    let (now, to) = (messages::entry(now), messages::entry(to));
    let fields: BTreeSet<&String> = [&now, &to].into_iter().filter_map(Value::as_object).flat_map(Map::keys).collect();
    let compared = fields.into_iter().filter(|field| !NOT_COMPARED.contains(&field.as_str()));
    compared
        .filter(|field| now[field.as_str()] != to[field.as_str()])
        .map(|field| (field.clone(), now[field.as_str()].clone(), to[field.as_str()].clone()))
        .collect()
}

fn id(id: Option<&Spiffeid>) -> String {
    id.map(|id| format!("spiffe://{}{}", id.trust_domain, id.path)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
