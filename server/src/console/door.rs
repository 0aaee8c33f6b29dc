//! Who may look, and who may change something.

mod refused;
mod secret;
mod visitor;

use std::sync::Mutex;
use std::time::{Duration, Instant};

pub use refused::Refused;
use secret::Secret;
pub use visitor::{Visitor, Writer, own_host};

/// How long a link that nobody has opened is good, minutes.
pub const LINK_MINUTES: u64 = 10;
/// How long a browser that opened one is let in: a working day.
const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);
/// Most browsers at once; one more, and the one that came first must open a new link.
const MAX_SESSIONS: usize = 16;

/// The console's door: a link opens it once, and from then on a cookie does.
#[derive(Debug)]
pub struct Door {
    may_write: bool,
    /// The pages' path: browsers send cookies of 127.0.0.1 to all its ports, but only with the path that they are for, and a page of
    /// another port does not know this one.
    place: Secret,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    link: Option<Given>,
    /// In the order they came.
    sessions: Vec<Session>,
}

#[derive(Debug)]
struct Given {
    key: Secret,
    at: Instant,
}

#[derive(Clone, Debug)]
struct Session {
    cookie: Secret,
    /// What this session's forms carry: a page of another origin cannot read it.
    form: Secret,
    opened_at: Instant,
}

impl Door {
    /// A door that nobody has a link for. `may_write`: whether anybody inside may change something.
    pub fn new(may_write: bool) -> Self {
        Self { may_write, place: Secret::random(), inside: Mutex::default() }
    }

    /// Where the pages are: a path that ends with a slash, another one each time that a console starts.
    pub fn home(&self) -> String {
        format!("/{}/", self.place.shown())
    }

    /// The key of a link that opens once; one given before opens nothing any more.
    pub fn new_link(&self, now: Instant) -> String {
        let key = Secret::random();
        let shown = key.shown();
        self.inside().link = Some(Given { key, at: now });
        shown
    }

    /// The cookie's value for whoever comes with the link's key. The link is spent.
    pub fn open(&self, key: &str, now: Instant) -> Result<String, Refused> {
        let mut inside = self.inside();
        let lifetime = Duration::from_secs(LINK_MINUTES * 60);
        let fits = |given: &Given| given.key.is(key) && now.duration_since(given.at) < lifetime;
        if !inside.link.as_ref().is_some_and(fits) {
            return Err(Refused::Link);
        }
        inside.link = None;
        let session = Session { cookie: Secret::random(), form: Secret::random(), opened_at: now };
        let cookie = session.cookie.shown();
        inside.sessions.push(session);
        let too_many = inside.sessions.len().saturating_sub(MAX_SESSIONS);
        inside.sessions.drain(..too_many);
        Ok(cookie)
    }

    /// The session of that cookie, if it is one of ours and not over.
    fn session(&self, cookie: &str, now: Instant) -> Option<Session> {
        let mut inside = self.inside();
        inside.sessions.retain(|session| now.duration_since(session.opened_at) < SESSION_LIFETIME);
        inside.sessions.iter().find(|session| session.cookie.is(cookie)).cloned()
    }

    fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().expect("no code panics while it holds the lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_opens_once_and_not_after_its_time_and_not_once_another_was_given() {
        let (door, now) = (Door::new(false), Instant::now());
        let key = door.new_link(now);
        assert_eq!(door.open("", now), Err(Refused::Link));
        assert_eq!(door.open(&"0".repeat(key.len()), now), Err(Refused::Link));
        assert!(door.open(&key, now).is_ok());
        assert_eq!(door.open(&key, now), Err(Refused::Link), "it was opened");
        let late = door.new_link(now);
        assert_eq!(door.open(&late, now + Duration::from_secs(LINK_MINUTES * 60)), Err(Refused::Link));
        let (before, after) = (door.new_link(now), door.new_link(now));
        assert_eq!(door.open(&before, now), Err(Refused::Link), "another was given");
        assert!(door.open(&after, now).is_ok());
    }

    #[test]
    fn a_session_ends_after_its_time_and_the_first_gives_way_to_one_too_many() {
        let (door, now) = (Door::new(false), Instant::now());
        let enter = || door.open(&door.new_link(now), now).expect("a fresh link");
        let first = enter();
        assert!(door.session(&first, now).is_some() && door.session("", now).is_none());
        for _ in 1..MAX_SESSIONS {
            enter();
        }
        assert!(door.session(&first, now).is_some());
        let last = enter();
        assert!(door.session(&first, now).is_none());
        assert!(door.session(&last, now + SESSION_LIFETIME).is_none());
        assert!(door.inside().sessions.is_empty());
    }
}
