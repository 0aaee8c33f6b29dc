use ironroot_api::pb::types::Selector;

use super::*;

fn spiffe_id(path: &str) -> Option<Spiffeid> {
    Some(Spiffeid { trust_domain: "td".into(), path: path.into() })
}

fn entry(id: &str, path: &str, uid: u32) -> Entry {
    let selector = Selector { r#type: "unix".into(), value: format!("uid:{uid}") };
    let (spiffe_id, parent_id) = (spiffe_id(path), spiffe_id("/gateway"));
    Entry { id: id.into(), spiffe_id, parent_id, selectors: vec![selector], ..Entry::default() }
}

fn owner() -> Owner {
    "team".parse().expect("legal")
}

fn read(file: Vec<Entry>, owner: Option<&Owner>) -> Result<Vec<Entry>, Vec<String>> {
    wanted(file.into_iter().map(Ok).collect(), owner)
}

fn planned(file: Vec<Entry>, there: Vec<Entry>, owner: Option<&Owner>, prune: bool) -> Plan {
    Plan::new(read(file, owner).expect("no mistake"), there, owner, prune)
}

#[test]
fn an_entry_without_an_id_is_the_one_with_its_spiffe_id_parent_and_selectors() {
    let there = vec![Entry { revision_number: 7, created_at: 9, ..entry("1", "/a", 1) }, entry("2", "/b", 2)];
    let file = vec![entry("", "/a", 1), Entry { x509_svid_ttl: 60, ..entry("", "/b", 2) }, entry("", "/c", 3)];
    let plan = planned(file, there, None, false);
    assert_eq!((plan.unchanged, plan.create.len(), plan.change.len()), (1, 1, 1), "{plan:?}");
    assert_eq!(plan.change[0].to.id, "2");
    assert_eq!(plan.change[0].fields, [("x509_svid_ttl".to_owned(), 0.into(), 60.into())]);
    assert!(plan.delete.is_empty() && plan.left_over.is_empty(), "entries of others are nobody's concern");
}

#[test]
fn an_owners_entries_have_ids_of_its_own_and_those_that_the_file_has_no_more_go_if_they_are_to() {
    let mine = read(vec![entry("", "/a", 1)], Some(&owner())).expect("no mistake").swap_remove(0);
    assert!(mine.id.starts_with("team.") && mine.id.len() == 37, "{}", mine.id);
    let there = vec![mine.clone(), entry("team.old", "/b", 2), entry("else.x", "/c", 3), entry("7f", "/d", 4)];
    let pruned = planned(vec![entry("", "/a", 1)], there.clone(), Some(&owner()), true);
    assert_eq!(pruned.delete.iter().map(|entry| &*entry.id).collect::<Vec<_>>(), ["team.old"]);
    assert_eq!((pruned.unchanged, pruned.left_over.len()), (1, 0));
    let kept = planned(vec![entry("", "/a", 1)], there, Some(&owner()), false);
    assert_eq!((kept.delete.len(), kept.left_over.len(), kept.differs()), (0, 1, true));
    assert!(!planned(vec![entry("", "/a", 1)], vec![mine], Some(&owner()), true).differs());
}

#[test]
fn what_another_entry_is_already_is_a_conflict_and_no_change() {
    let theirs = planned(vec![entry("", "/a", 1)], vec![entry("7f", "/a", 1)], Some(&owner()), true);
    assert!(theirs.conflicts[0].contains("is there already as entry 7f"), "{theirs:?}");
    let there = vec![entry("1", "/a", 1), entry("2", "/b", 2)];
    let taken = planned(vec![entry("1", "/b", 2)], there, None, false);
    assert!(taken.conflicts[0].contains("entry 2 is that already"), "{taken:?}");
    assert!(theirs.create.is_empty() && theirs.delete.is_empty() && taken.change.is_empty());
}

/// An update may make one entry what another is, at SPIRE's server too.
#[test]
fn entries_that_are_the_same_but_for_their_ids_are_told_apart_by_those() {
    let there = vec![entry("1", "/a", 1), entry("2", "/a", 1)];
    for file in [there.clone(), there.iter().rev().cloned().collect()] {
        let plan = planned(file, there.clone(), None, true);
        assert!(!plan.differs() && plan.unchanged == 2, "{plan:?}");
    }
    let file = vec![entry("1", "/a", 1), Entry { x509_svid_ttl: 60, ..entry("2", "/a", 1) }];
    let plan = planned(file, there.clone(), None, false);
    assert_eq!((plan.unchanged, plan.change.len(), plan.change[0].to.id.as_str()), (1, 1, "2"), "{plan:?}");
    let which = planned(vec![entry("", "/a", 1)], there, None, false);
    assert!(which.conflicts[0].contains("as entries 1, 2: give the entry its ID"), "{which:?}");
    let mistakes = read(vec![entry("1", "/a", 1), entry("", "/a", 1)], None).expect_err("which is it?");
    assert!(mistakes[0].contains("of entry 1"), "{mistakes:?}");
}

#[test]
fn an_entry_that_is_named_by_its_id_may_become_another_one() {
    let plan = planned(vec![entry("1", "/b", 2)], vec![entry("1", "/a", 1)], None, false);
    let fields: Vec<&str> = plan.change[0].fields.iter().map(|(field, ..)| field.as_str()).collect();
    assert_eq!(fields, ["selectors", "spiffe_id"]);
}

#[test]
fn an_attribute_that_the_file_does_not_have_any_more_is_a_difference() {
    let attributes = types_attributes();
    let there = vec![Entry { additional_attributes: Some(attributes), ..entry("1", "/a", 1) }];
    let plan = planned(vec![entry("1", "/a", 1)], there, None, false);
    assert_eq!(plan.change[0].fields[0].0, "additional_attributes", "{plan:?}");
}

fn types_attributes() -> ironroot_api::pb::types::entry::AdditionalAttributes {
    ironroot_api::pb::types::entry::AdditionalAttributes { jwt_svid_include_jti: true, ..Default::default() }
}

#[test]
fn the_order_of_selectors_and_names_is_no_difference() {
    let two = |first: u32, second: u32| {
        let mut one = entry("1", "/a", first);
        one.selectors.extend(entry("1", "/a", second).selectors);
        one
    };
    assert!(!planned(vec![two(1, 2)], vec![two(2, 1)], None, false).differs());
}

#[test]
fn every_mistake_of_a_file_is_named_with_the_number_of_its_entry() {
    let no_selector = Entry { selectors: Vec::new(), ..entry("", "/b", 1) };
    let none = Err(vec!["spiffe_id \"x\": no".to_owned(), "parent_id \"y\": no".to_owned()]);
    let entries =
        [entry("", "/a", 1), no_selector, entry("", "/a", 1), entry("x y", "/c", 1), entry("else.1", "/d", 1)];
    let file = entries.into_iter().map(Ok).chain([none]).collect();
    let mistakes = wanted(file, Some(&owner())).expect_err("mistakes");
    let numbers: Vec<&str> = mistakes.iter().filter_map(|told| told.split(':').next()).collect();
    assert_eq!(numbers, ["entry 2", "entry 3", "entry 4", "entry 5", "entry 6", "entry 6"], "{mistakes:?}");
}
