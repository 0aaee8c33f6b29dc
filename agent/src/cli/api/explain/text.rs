//! An explanation for people.

use ironroot_api::pb::explain::Explanation;
use ironroot_api::pb::explain::explanation::Entry;
use ironroot_api::utc;
use ironroot_shell::command_line::labelled;

pub(super) fn text(told: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| labelled(&mut text, 13, name, value);
    match told.pid {
        0 => line("Process", &format!("not visible to the agent, of user {}", told.uid)),
        pid => line("Process", &format!("{pid}, user {}, group {}", told.uid, told.gid)),
    }
    told.selectors.iter().for_each(|selector| line("Selector", selector));
    told.withheld.iter().for_each(|withheld| line("Left out", &format!("{}: {}", withheld.selectors, withheld.reason)));
    told.entries.iter().for_each(|entry| line("Its own", &own(entry)));
    told.nearest.iter().for_each(|entry| line("Nearly", &near(entry)));
    match told.reasons.is_empty() {
        true => line("Served", "yes"),
        false => told.reasons.iter().for_each(|reason| line("Not served", reason)),
    }
    text
}

fn own(entry: &Entry) -> String {
    let state = match (entry.state.as_str(), entry.ends_at) {
        ("hidden", _) => "hidden: an older entry has the same hint".to_owned(),
        ("on demand", _) => "its SVID is made when it is asked for".to_owned(),
        ("unsigned", _) => "its SVID is not signed yet".to_owned(),
        (state, 0) => state.to_owned(),
        ("expired", end) => format!("ended at {}", utc(end)),
        (state, end) => format!("{state} until {}", utc(end)),
    };
    format!("{} (entry {}): {state}", entry.spiffe_id, entry.id)
}

fn near(entry: &Entry) -> String {
    let missing: Vec<String> = entry.lacks.iter().map(|selector| format!("{selector} is missing")).collect();
    format!("{} (entry {}): {}", entry.spiffe_id, entry.id, missing.join(", "))
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::explain::explanation::Withheld;

    use super::*;

    fn entry(path: &str, state: &str, ends_at: i64, lacks: &[&str]) -> Entry {
        let lacks = lacks.iter().map(|text| (*text).to_owned()).collect();
        let (id, spiffe_id) = ("e".to_owned(), format!("spiffe://td/{path}"));
        Entry { id, spiffe_id, selectors: Vec::new(), lacks, state: state.into(), ends_at }
    }

    #[test]
    fn an_explanation_says_in_words_what_is_missing() {
        let told = Explanation {
            pid: 7,
            uid: 1,
            gid: 2,
            selectors: vec!["unix:uid:1".into()],
            withheld: vec![Withheld { selectors: "unix:path".into(), reason: "no".into() }],
            entries: vec![entry("a", "expired", 1, &[]), entry("b", "served", 1, &[]), entry("c", "unsigned", 0, &[])],
            nearest: vec![entry("db", "", 0, &["unix:gid:1000", "unix:user:x"])],
            reasons: vec!["because".into()],
            ..Explanation::default()
        };
        let wanted = "Process      : 7, user 1, group 2
Selector     : unix:uid:1
Left out     : unix:path: no
Its own      : spiffe://td/a (entry e): ended at 1970-01-01T00:00:01Z
Its own      : spiffe://td/b (entry e): served until 1970-01-01T00:00:01Z
Its own      : spiffe://td/c (entry e): its SVID is not signed yet
Nearly       : spiffe://td/db (entry e): unix:gid:1000 is missing, unix:user:x is missing
Not served   : because
";
        assert_eq!(text(&told), wanted);
        assert!(text(&Explanation::default()).ends_with("Served       : yes\n"));
        assert!(text(&Explanation::default()).starts_with("Process      : not visible to the agent, of user 0\n"));
    }
}
