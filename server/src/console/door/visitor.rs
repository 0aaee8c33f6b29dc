//! What a request proves of whoever sent it.

use std::time::Instant;

use axum::http::{HeaderMap, header};

use super::{Door, Refused, Session};

/// What the cookie is called.
pub(super) const COOKIE: &str = "ironroot_console";
/// Names that a browser may know this machine by, besides a port.
const OWN_NAMES: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Whoever sent a request has opened a link; only [`Door::visitor`] makes one.
#[derive(Debug)]
pub struct Visitor {
    session: Session,
    may_write: bool,
}

/// A visitor who sent a form of the console's own, where things may be changed; only [`Visitor::writer`] makes one.
#[derive(Debug)]
pub struct Writer(());

impl Door {
    /// Who sends a request with these headers.
    pub fn visitor(&self, headers: &HeaderMap, now: Instant) -> Result<Visitor, Refused> {
        own_host(headers)?;
        let session = cookies(headers).find_map(|cookie| self.session(cookie, now)).ok_or(Refused::NoSession)?;
        Ok(Visitor { session, may_write: self.may_write })
    }

    /// What makes a browser send `cookie` with each request to come, to nobody else's pages and scripts, and to no other port: those are
    /// asked for other paths. Source: RFC 6265, sections 5.1.4 and 8.5.
    pub fn set_cookie(&self, cookie: &str) -> String {
        format!("{COOKIE}={cookie}; HttpOnly; SameSite=Strict; Path={}", self.home())
    }
}

impl Visitor {
    /// What forms must carry, if there is anything to be changed.
    pub fn form(&self) -> Option<String> {
        self.may_write.then(|| self.session.form.shown())
    }

    /// Lets the visitor change something. `form` is what the form carried.
    pub fn writer(&self, headers: &HeaderMap, form: &str) -> Result<Writer, Refused> {
        if !self.may_write {
            return Err(Refused::ReadOnly);
        }
        own_origin(headers)?;
        if self.session.form.is(form) { Ok(Writer(())) } else { Err(Refused::Form) }
    }
}

/// Refuses names that are not this machine's: a page of `evil.example` that resolves to 127.0.0.1 would be of our origin.
pub fn own_host(headers: &HeaderMap) -> Result<&str, Refused> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).ok_or(Refused::Host)?;
    let is_own = |name: &&str| host.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || is_port(rest));
    if OWN_NAMES.iter().any(is_own) { Ok(host) } else { Err(Refused::Host) }
}

fn is_port(rest: &str) -> bool {
    rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

/// Browsers tell with each form where the page is from that sends it. Source: Fetch, section 3.1 "Origin header".
fn own_origin(headers: &HeaderMap) -> Result<(), Refused> {
    let own = format!("http://{}", own_host(headers)?);
    let same = headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes() == own.as_bytes());
    let site = headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin");
    if same && site { Ok(()) } else { Err(Refused::Origin) }
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (header::HeaderName::from_static(name), HeaderValue::from_str(value).expect("legal"))
        };
        pairs.iter().map(pair).collect()
    }

    fn entered(may_write: bool) -> (Door, String) {
        let (door, now) = (Door::new(may_write), Instant::now());
        let cookie = door.open(&door.new_link(now), now).expect("a fresh link");
        (door, cookie)
    }

    fn refused(outcome: Result<impl Sized, Refused>) -> Option<Refused> {
        outcome.err()
    }

    #[test]
    fn names_of_this_machine_alone_reach_the_console() {
        for host in ["127.0.0.1", "127.0.0.1:8080", "localhost:1", "[::1]:8080", "localhost"] {
            assert_eq!(refused(own_host(&headers(&[("host", host)]))), None, "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil:1", "localhost:x", "127.0.0.2", ""] {
            assert_eq!(refused(own_host(&headers(&[("host", host)]))), Some(Refused::Host), "{host}");
        }
        assert_eq!(refused(own_host(&HeaderMap::new())), Some(Refused::Host));
    }

    #[test]
    fn a_request_without_the_cookie_of_an_opened_link_is_nobodys() {
        let (door, cookie) = entered(false);
        let ask = |cookie: &str| {
            refused(door.visitor(&headers(&[("host", "localhost:1"), ("cookie", cookie)]), Instant::now()))
        };
        assert_eq!(ask(&format!("ironroot_console={cookie}")), None);
        assert_eq!(ask(&format!("other=1; ironroot_console={cookie}")), None);
        for wrong in ["", "ironroot_console=", "other=1", &format!("xironroot_console={cookie}"), &cookie] {
            assert_eq!(ask(wrong), Some(Refused::NoSession), "{wrong}");
        }
        let elsewhere = headers(&[("host", "evil.example"), ("cookie", &format!("ironroot_console={cookie}"))]);
        assert_eq!(refused(door.visitor(&elsewhere, Instant::now())), Some(Refused::Host));
    }

    #[test]
    fn a_cookie_is_for_a_path_that_no_page_of_another_port_knows() {
        let [(one, cookie), (other, _)] = [entered(false), entered(false)];
        let set = one.set_cookie(&cookie);
        assert!(set.ends_with(&format!("Path={}", one.home())) && one.home().len() == 66, "{set}");
        assert_ne!(one.home(), other.home());
        assert!(!format!("{one:?}").contains(one.home().trim_matches('/')), "it is shown to nobody by accident");
    }

    #[test]
    fn a_form_of_another_origin_or_session_or_of_a_console_that_only_shows_changes_nothing() {
        let (door, cookie) = entered(true);
        let cookie = format!("ironroot_console={cookie}");
        let from =
            |more: &[(&'static str, &str)]| headers(&[&[("host", "localhost:1"), ("cookie", &cookie)], more].concat());
        let own = from(&[("origin", "http://localhost:1"), ("sec-fetch-site", "same-origin")]);
        let visitor = door.visitor(&own, Instant::now()).expect("inside");
        let form = visitor.form().expect("may write");
        assert!(visitor.writer(&own, &form).is_ok());
        assert_eq!(refused(visitor.writer(&own, "")), Some(Refused::Form));
        for other in [
            from(&[]),
            from(&[("origin", "null")]),
            from(&[("origin", "http://localhost:2")]),
            from(&[("origin", "http://evil.example")]),
            from(&[("origin", "http://localhost:1"), ("sec-fetch-site", "cross-site")]),
        ] {
            assert_eq!(refused(visitor.writer(&other, &form)), Some(Refused::Origin), "{other:?}");
        }
        let (shows, cookie) = entered(false);
        let cookie = format!("ironroot_console={cookie}");
        let own = headers(&[("host", "localhost:1"), ("cookie", &cookie), ("origin", "http://localhost:1")]);
        let visitor = shows.visitor(&own, Instant::now()).expect("inside");
        assert_eq!(visitor.form(), None);
        assert_eq!(refused(visitor.writer(&own, "")), Some(Refused::ReadOnly));
    }
}
