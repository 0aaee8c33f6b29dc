//! What is around every page.

use axum::http::StatusCode;
use maud::{DOCTYPE, Markup, html};

/// Which page is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Fleet,
    Entries,
    Authorities,
}

impl Place {
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Fleet, "/", "Fleet"),
        (Self::Entries, "/entries", "Entries"),
        (Self::Authorities, "/authorities", "Authorities"),
    ];
}

/// A page: its title, where it belongs, what is on it. `revision`: of a page whose rows are replaced one by one.
pub(super) fn frame(title: &str, place: Place, revision: Option<u64>, content: &Markup) -> Markup {
    html! {
        (head(title))
        body {
            header {
                a.brand href="/" { "Ironroot" }
                nav {
                    @for (of, path, name) in Place::ALL {
                        a href=(path) aria-current=[(of == place).then_some("page")] { (name) }
                    }
                }
                span #live role="status" {}
            }
            main data-revision=[revision] { (content) }
        }
    }
}

/// What a link that was opened leads on from: the browser goes on from a page of ours, and so sends the cookie that it was given.
pub fn opened() -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; meta http-equiv="refresh" content="0;url=/"; title { "Ironroot" } }
            body { a href="/" { "To the fleet" } }
        }
    }
}

/// A page that says why there is none.
pub fn refusal(status: StatusCode, why: &str) -> Markup {
    html! {
        (head("Ironroot"))
        body {
            main.refused {
                h1 { (status.canonical_reason().unwrap_or("Refused")) }
                p { (why) }
                p { a href="/" { "To the fleet" } }
            }
        }
    }
}

fn head(title: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en";
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) }
            link rel="stylesheet" href="/style.css";
            link rel="icon" href="data:,";
            script src="/live.js" defer {}
        }
    }
}
