//! `doctor`: what only this machine, at this moment, can say: is it there, may we, does it answer? Each finding has the next command.

mod looks;

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Reply, counted, shown};
use crate::settings::ConfigErrors;
pub use looks::{disk_space, listener_is_free, name_resolves, port_is_free};

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, and somebody should know.
    Doubtful,
    /// It does not work.
    Fault,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Doubtful => "doubtful",
            Self::Fault => "fault",
        }
    }
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What: `token`, `port 8081`.
    pub about: String,
    /// How it is.
    pub verdict: Verdict,
    /// In words.
    pub says: String,
    /// What to do next; empty if nothing.
    pub next: String,
}

/// All that was looked at, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// It is as it should be.
    pub fn good(&mut self, about: impl Into<String>, says: impl Into<String>) {
        self.add(about, Verdict::Good, says, "");
    }

    /// It works, and somebody should know.
    pub fn doubtful(&mut self, about: impl Into<String>, says: impl Into<String>, next: impl Into<String>) {
        self.add(about, Verdict::Doubtful, says, next);
    }

    /// It does not work.
    pub fn fault(&mut self, about: impl Into<String>, says: impl Into<String>, next: impl Into<String>) {
        self.add(about, Verdict::Fault, says, next);
    }

    /// What a look gave: good with its words, or a fault with `next`.
    pub fn looked(&mut self, about: impl Into<String>, look: Result<String, String>, next: impl Into<String>) {
        match look {
            Ok(says) => self.good(about, says),
            Err(says) => self.fault(about, says, next),
        }
    }

    /// The configuration, if it is one; a fault for each mistake in it otherwise. `program`: whose it is.
    pub fn configuration<T>(&mut self, read: Result<T, ConfigErrors>, program: &str) -> Option<T> {
        let next = || {
            format!(
                "correct it, or name another file with -config; it is read as the daemon's user: sudo -u {program} ..."
            )
        };
        match read {
            Ok(config) => Some(config),
            Err(mistakes) => {
                mistakes.to_string().lines().for_each(|mistake| self.fault("configuration", mistake, next()));
                None
            }
        }
    }

    fn add(&mut self, about: impl Into<String>, verdict: Verdict, says: impl Into<String>, next: impl Into<String>) {
        let (about, says, next) = (about.into(), says.into(), next.into());
        self.0.push(Finding { about, verdict, says, next });
    }

    /// How many there are of a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.0.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// The answer; it fails if there is a fault.
    pub fn reply(&self) -> Reply {
        let (faults, doubts) = (self.count(Verdict::Fault), self.count(Verdict::Doubtful));
        let failed = faults > 0;
        let json = json!({
            "healthy": !failed,
            "findings": self.0.iter().map(Finding::json).collect::<Vec<_>>(),
        });
        let width = self.0.iter().map(|finding| finding.about.chars().count()).max().unwrap_or(0);
        let mut text: String = self.0.iter().map(|finding| finding.text(width)).collect();
        let (faults, doubts) = (counted(faults, "fault", "faults"), counted(doubts, "doubt", "doubts"));
        writeln!(text, "\n{faults}, {doubts}").expect("writing to a string cannot fail");
        Reply { failed, ..Reply::new(json, text) }
    }
}

impl Finding {
    fn json(&self) -> Value {
        json!({ "about": self.about, "verdict": self.verdict.word(), "says": self.says, "next": self.next })
    }

    fn text(&self, width: usize) -> String {
        let mark = match self.verdict {
            Verdict::Good => "ok   ",
            Verdict::Doubtful => "look ",
            Verdict::Fault => "FAULT",
        };
        let next = match self.next.as_str() {
            "" => String::new(),
            next => format!("\n{:width$}        next: {}", "", shown(next)),
        };
        format!("{mark}  {:<width$}  {}{next}\n", shown(&self.about), shown(&self.says))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_fails_the_command_and_a_doubt_does_not() {
        let mut findings = Findings::default();
        findings.good("disk", "9.0 GB free");
        findings.doubtful("port 80", "a server runs there", "systemctl status ironroot-server");
        assert!(!findings.reply().failed);
        findings.fault("token", "it is locked", "have it reset");
        let reply = findings.reply();
        assert!(reply.failed);
        let wanted = "ok     disk     9.0 GB free
look   port 80  a server runs there
               next: systemctl status ironroot-server
FAULT  token    it is locked
               next: have it reset

1 fault, 1 doubt
";
        assert_eq!(reply.text, wanted);
        assert_eq!(reply.json["findings"][2]["verdict"], "fault");
        assert_eq!(
            (&reply.json["healthy"], &reply.json["findings"][1]["next"]),
            (&false.into(), &"systemctl status ironroot-server".into())
        );
    }
}
