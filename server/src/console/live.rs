//! What changes while somebody looks: the fleet is asked for again and again, for all who look together, and each is sent what is
//! another since it was sent something.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::response::sse::Event;
use futures_util::Stream;
use futures_util::stream::unfold;
use ironroot_shell::clock::wall_unix;
use serde_json::json;
use tokio::sync::watch;

use super::asked::Server;
use super::fleet::{Fleet, Row, Wanted};
use super::pages;

/// How often the server is asked while somebody looks, if its answer takes no time.
const INTERVAL: Duration = Duration::from_secs(2);
/// Of a large fleet the answer takes long: it is asked for at most that share of the time.
const SHARE: u32 = 20;
/// Most rows sent at once: whoever must be sent more loads the page anew.
const MAX_ROWS_AT_ONCE: usize = 200;

type Seen = Option<Arc<Fleet>>;

/// Asks the server while anybody looks, and not otherwise.
#[derive(Debug)]
pub(super) struct Watcher {
    server: Server,
    seen: Mutex<watch::Receiver<Seen>>,
}

impl Watcher {
    pub(super) fn new(server: Server) -> Self {
        Self { server, seen: Mutex::new(watch::channel(None).1) }
    }

    /// What there is to be told from now on, for one who looks. Inside a runtime.
    pub(super) fn changes(&self) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
        let receiver = self.look();
        unfold((receiver, None), |(mut receiver, before): (watch::Receiver<Seen>, Seen)| async move {
            loop {
                let now = receiver.borrow_and_update().clone();
                if let Some(now) = now
                    && let Some(told) = told(before.as_deref(), &now, wall_unix())
                {
                    return Some((Ok(Event::default().data(told.to_string())), (receiver, Some(now))));
                }
                receiver.changed().await.ok()?;
            }
        })
    }

    /// What the one that asks has seen last; it begins to ask if nobody has looked until now.
    fn look(&self) -> watch::Receiver<Seen> {
        let mut seen = self.seen.lock().expect("no code panics while it holds the lock");
        if seen.has_changed().is_err() {
            let (sender, receiver) = watch::channel(None);
            *seen = receiver.clone();
            // The receiver that is kept here does not count as somebody who looks.
            drop(tokio::spawn(ask(self.server.clone(), sender)));
            return receiver;
        }
        seen.clone()
    }
}

/// Receivers that are kept whether anybody looks or not.
const KEPT: usize = 1;

async fn ask(server: Server, sender: watch::Sender<Seen>) {
    while sender.receiver_count() > KEPT {
        let began = Instant::now();
        if let Ok(fleet) = Fleet::now(&server, &Wanted::default()).await {
            sender.send_replace(Some(Arc::new(fleet)));
        }
        tokio::time::sleep(INTERVAL.max(began.elapsed() * SHARE)).await;
    }
}

/// What the page's script is sent; none if nothing is another.
fn told(before: Option<&Fleet>, now: &Fleet, at: i64) -> Option<serde_json::Value> {
    // As text: a script's numbers have 53 bits.
    let revision = now.revision().to_string();
    let Some(before) = before else { return Some(json!({ "first": true, "revision": revision })) };
    if before.revision() == now.revision() {
        return None;
    }
    let known: HashMap<&str, &Row> = before.rows.iter().map(|row| (&*row.ek_sha256, row)).collect();
    let other: Vec<&Row> = now.rows.iter().filter(|row| known.get(&*row.ek_sha256) != Some(row)).collect();
    let new = other.iter().filter(|row| !known.contains_key(&*row.ek_sha256)).count();
    // Rows that are not told of are told as gone: then the page is loaded anew.
    let gone = (before.rows.len() + new).saturating_sub(now.rows.len()) + other.len().saturating_sub(MAX_ROWS_AT_ONCE);
    let rows: Vec<_> = other
        .into_iter()
        .take(MAX_ROWS_AT_ONCE)
        .map(|row| json!([pages::row_id(row), pages::row(row, at).into_string()]))
        .collect();
    Some(json!({ "revision": revision, "tiles": pages::tiles(now).into_string(), "rows": rows, "gone": gone }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::fleet::{BootTold, Passing, State};

    fn device(number: usize, serial: &str) -> Row {
        Row {
            ek_sha256: format!("{number:064}"),
            serial: serial.into(),
            labels: Vec::new(),
            state: State::Enrolled,
            boot: BootTold::Nothing,
            suspected: false,
            last_seen: Passing(0),
            agent: None,
        }
    }

    fn fleet(rows: Vec<Row>) -> Fleet {
        Fleet { status: Default::default(), rows, others: Vec::new() }
    }

    #[test]
    fn whoever_looks_is_told_the_revision_first_and_then_what_is_another() {
        let before = fleet(vec![device(1, "SN-1"), device(2, "SN-2")]);
        let first = told(None, &before, 0).expect("told");
        assert_eq!((&first["first"], &first["revision"]), (&true.into(), &before.revision().to_string().into()));
        assert_eq!(told(Some(&before), &before, 0), None);
        let now = fleet(vec![device(1, "SN-1"), device(2, "SN-9")]);
        let change = told(Some(&before), &now, 0).expect("told");
        assert_eq!((change["rows"].as_array().map(Vec::len), &change["gone"]), (Some(1), &0.into()));
        assert!(change["rows"][0][1].as_str().expect("HTML").contains("SN-9"), "{change}");
    }

    #[test]
    fn devices_that_came_and_went_are_told_apart() {
        let before = fleet(vec![device(1, "a"), device(2, "b")]);
        let change = |rows| told(Some(&before), &fleet(rows), 0).expect("told");
        let came = change(vec![device(1, "a"), device(2, "b"), device(3, "c")]);
        assert_eq!((came["rows"].as_array().map(Vec::len), &came["gone"]), (Some(1), &0.into()));
        let went = change(vec![device(1, "a")]);
        assert_eq!((went["rows"].as_array().map(Vec::len), &went["gone"]), (Some(0), &1.into()));
        let both = change(vec![device(1, "a"), device(3, "c")]);
        assert_eq!((both["rows"].as_array().map(Vec::len), &both["gone"]), (Some(1), &1.into()));
    }

    #[test]
    fn more_rows_than_are_sent_at_once_make_the_page_load_anew() {
        let many = |serial: &str| fleet((0..MAX_ROWS_AT_ONCE + 3).map(|number| device(number, serial)).collect());
        let change = told(Some(&many("a")), &many("b"), 0).expect("told");
        assert_eq!((change["rows"].as_array().map(Vec::len), &change["gone"]), (Some(MAX_ROWS_AT_ONCE), &3.into()));
    }
}
