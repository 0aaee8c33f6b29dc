//! Registration entries, and whom each is for.

use ironroot_api::pb::device::advise_on_entries_response::Advice;
use ironroot_api::pb::types::Entry;
use maud::{Markup, html};

use super::frame::{Place, frame};
use super::words::left;
use crate::console::identities::shown;

/// What the page is made of.
#[derive(Debug, Default)]
pub struct EntriesPage {
    /// Each with what the server says of it.
    pub entries: Vec<(Entry, Advice)>,
    /// How many there are on all pages; of all, not of those that are searched for.
    pub in_all: i32,
    /// The SPIFFE ID that is searched for; may be empty.
    pub spiffe_id: String,
    /// Leads to the next page; empty if this is the last.
    pub next: String,
    /// What is wrong with what was searched for.
    pub mistake: Option<String>,
}

/// The page.
pub fn entries(page: &EntriesPage, now: i64) -> Markup {
    frame(
        "Entries",
        Place::Entries,
        None,
        &html! {
            h1 { "Entries" }
            form.search method="get" action="entries" role="search" {
                label { "SPIFFE ID " input type="search" name="id" value=(page.spiffe_id) placeholder="spiffe://example.org/web" size="50" maxlength="2048"; }
                button { "Show" }
                @if !page.spiffe_id.is_empty() { a href="entries" { "Show all" } }
            }
            @if let Some(mistake) = &page.mistake { p.trouble role="alert" { (mistake) } }
            p.count { (page.in_all) " in all" }
            @if page.entries.is_empty() { p.nothing { "No entry is like that. Make one: " code { "ironroot-server entry create --help" } } }
            @else {
                table {
                    thead { tr { th { "SPIFFE ID" } th { "Parent" } th { "Selectors" } th { "Who has it" } th { "Ends" } } }
                    tbody { @for (entry, advice) in &page.entries { (row(entry, advice, now)) } }
                }
            }
            @if !page.next.is_empty() { p { a rel="next" href=(next(page)) { "Next page" } } }
        },
    )
}

fn row(entry: &Entry, advice: &Advice, now: i64) -> Markup {
    html! { tr id=(format!("e-{}", entry.id)) {
        td.id { (shown(entry.spiffe_id.as_ref())) }
        td.id { (shown(entry.parent_id.as_ref())) }
        td { @for selector in &entry.selectors { span.label { (selector.r#type) ":" (selector.value) } } }
        td { @for warning in &advice.warnings { b.warn { (warning) } " " } @for note in &advice.notes { (note) " " } }
        td { @if entry.expires_at == 0 { "–" } @else { (left(entry.expires_at, now)) } }
    } }
}

/// Page tokens are the server's own, and need no escaping in an address but what maud does: they are digits or base64.
fn next(page: &EntriesPage) -> String {
    let encode = |text: &str| -> String {
        let byte = |byte: u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    format!("entries?id={}&page={}", encode(&page.spiffe_id), encode(&page.next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_an_entry_is_for_stands_beside_it_and_the_next_page_has_an_address() {
        let advice = Advice { warnings: vec!["matches 0 of 300 devices".into()], notes: Vec::new() };
        let page = EntriesPage {
            entries: vec![(Entry { id: "x".into(), ..Entry::default() }, advice)],
            spiffe_id: "spiffe://td/a b&c".into(),
            next: "a+b=".into(),
            ..EntriesPage::default()
        };
        let shown = entries(&page, 9).into_string();
        assert!(shown.contains("matches 0 of 300 devices"), "{shown}");
        assert!(shown.contains("\"entries?id=spiffe%3A%2F%2Ftd%2Fa%20b%26c&amp;page=a%2Bb%3D"), "{shown}");
    }
}
