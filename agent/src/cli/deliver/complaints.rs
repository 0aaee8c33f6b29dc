//! What is wrong, said once, not every few seconds for months.

use std::time::{Duration, Instant};

use ironroot_shell::command_line::{CommandError, Output, Reply};

/// The same trouble is said again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(60 * 60);

/// The trouble that was said last, and when.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    last: Option<(String, Instant)>,
}

impl Complaints {
    /// Says it on standard error, unless it has just been said.
    pub(super) fn say(&mut self, error: &CommandError) {
        if let Some(message) = self.unsaid(error.for_people(), Instant::now()) {
            let complaints = format!("{message}\n");
            Reply::print(&Ok(Reply { complaints, ..Reply::default() }), Output::Pretty);
        }
    }

    /// It is over, and that is said: if it comes again, that is news.
    pub(super) fn end(&mut self) {
        if self.last.take().is_some() {
            let complaints = "it works again: the files are there, and who is to be told has been told\n".to_owned();
            Reply::print(&Ok(Reply { complaints, ..Reply::default() }), Output::Pretty);
        }
    }

    fn unsaid(&mut self, message: String, now: Instant) -> Option<&str> {
        if let Some((last, at)) = &self.last
            && *last == message
            && now.duration_since(*at) < AGAIN_AFTER
        {
            return None;
        }
        Some(&self.last.insert((message, now)).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_said_once_an_hour_and_another_at_once() {
        let (mut complaints, start) = (Complaints::default(), Instant::now());
        let mut said =
            |what: &str, after: u64| complaints.unsaid(what.to_owned(), start + Duration::from_secs(after)).is_some();
        assert_eq!(
            [said("gone", 0), said("gone", 30), said("gone", 3599), said("gone", 3600)],
            [true, false, false, true]
        );
        assert!(said("denied", 3601));
        complaints.end();
        assert!(complaints.unsaid("denied".to_owned(), start + Duration::from_secs(3602)).is_some(), "it had ended");
    }
}
