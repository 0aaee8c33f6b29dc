//! What is around every page.

use axum::http::StatusCode;
use maud::{DOCTYPE, Markup, html};

/// Which page is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Fleet,
    /// One of the fleet.
    Device,
    Entries,
    Authorities,
}

impl Place {
    /// Those that every page leads to: from the fleet's own place.
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Fleet, "./", "Fleet"),
        (Self::Entries, "entries", "Entries"),
        (Self::Authorities, "authorities", "Authorities"),
    ];

    /// How a link goes back to the fleet's place. No page knows the console's own path, which is a secret of its browser's.
    fn up(self) -> &'static str {
        if self == Self::Device { "../" } else { "" }
    }

    /// The one of [`ALL`](Self::ALL) that it belongs to.
    fn tab(self) -> Self {
        if self == Self::Device { Self::Fleet } else { self }
    }
}

/// A page: its title, where it belongs, what is on it. `revision`: of a page whose rows are replaced one by one.
pub(super) fn frame(title: &str, place: Place, revision: Option<u64>, content: &Markup) -> Markup {
    html! {
        (head(title))
        body {
            header {
                a.brand href={ (place.up()) "./" } { "Ironroot" }
                nav {
                    @for (of, path, name) in Place::ALL {
                        a href={ (place.up()) (path) } aria-current=[(of == place.tab()).then_some("page")] { (name) }
                    }
                }
                span #live role="status" {}
            }
            main data-revision=[revision] { (content) }
        }
    }
}

/// What a link that was opened leads on from, to `home`: the browser goes on from a page of ours, and so sends the cookie that it was given.
pub fn opened(home: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; meta http-equiv="refresh" content={ "0;url=" (home) }; title { "Ironroot" } }
            body { a href=(home) { "To the fleet" } }
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
