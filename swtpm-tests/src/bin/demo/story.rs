//! Progress for a person at 80 columns; each step is also a place to stop.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::Outcome;

/// Columns of the smallest terminal that people have.
const WIDTH: usize = 80;
/// How often it is looked whether Ctrl-C was pressed while somebody is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

const BOLD: &str = "\x1b[1m";
const CYAN: &str = "\x1b[36m";
const GREEN: &str = "\x1b[32m";
const FAINT: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Tells chapters, commands and facts.
pub(super) struct Story {
    began: Instant,
    chapters: u32,
    step: bool,
    is_coloured: bool,
    interrupted: Arc<AtomicBool>,
}

impl Story {
    /// `step`: Enter is waited for before each chapter but the first.
    pub fn begin(step: bool, interrupted: Arc<AtomicBool>) -> Outcome<Self> {
        // Source: no-color.org.
        let is_coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        let story = Self { began: Instant::now(), chapters: 0, step, is_coloured, interrupted };
        story.say(
            BOLD,
            "",
            "Ironroot: a device boots, proves its TPM, and its workloads hold SVIDs, online and offline",
        )?;
        Ok(story)
    }

    pub fn chapter(&mut self, title: &str) -> Outcome<()> {
        if self.step && self.chapters > 0 {
            self.wait_for_enter()?;
        }
        self.chapters += 1;
        let head = format!("[{:>5.1} s] {}. ", self.began.elapsed().as_secs_f32(), self.chapters);
        self.say("", "", "")?;
        self.say(BOLD, &head, title)
    }

    /// What is typed on a machine of the operator's, before its result.
    pub fn command(&self, line: &str) -> Outcome<()> {
        self.say(CYAN, "  $ ", line)
    }

    pub fn fact(&self, text: &str) -> Outcome<()> {
        self.say(GREEN, "    ✓ ", text)
    }

    pub fn end(&self) -> Outcome<()> {
        let took = self.began.elapsed().as_secs_f32();
        self.say("", "", "")?;
        let done = "attested, served, told apart, offline after a power cut, useless to a thief, caught up, \
                    refused another boot, rotated, banned.";
        self.say(BOLD, "", &format!("Done in {took:.1} s: {done}"))
    }

    fn wait_for_enter(&self) -> Outcome<()> {
        let (before, after) = if self.is_coloured { (FAINT, PLAIN) } else { ("", "") };
        let mut out = io::stdout().lock();
        write!(out, "\n{before}  Enter: the next chapter {after}")?;
        out.flush()?;
        drop(out);
        let (sender, entered) = mpsc::channel();
        std::thread::spawn(move || {
            let _ = io::stdin().lock().read_line(&mut String::new());
            let _ = sender.send(());
        });
        while let Err(mpsc::RecvTimeoutError::Timeout) = entered.recv_timeout(LOOK_INTERVAL) {
            self.go_on()?;
        }
        Ok(())
    }

    /// Lines that fit the screen, unless nobody wants more: the reader went away, or Ctrl-C was pressed.
    fn say(&self, colour: &str, mark: &str, text: &str) -> Outcome<()> {
        self.go_on()?;
        let (before, after) = if self.is_coloured && !colour.is_empty() { (colour, PLAIN) } else { ("", "") };
        let mut out = io::stdout().lock();
        for (number, line) in wrapped(text, WIDTH - mark.chars().count()).into_iter().enumerate() {
            let mark = if number == 0 { mark.to_owned() } else { " ".repeat(mark.chars().count()) };
            writeln!(out, "{before}{mark}{line}{after}")?;
        }
        Ok(())
    }

    fn go_on(&self) -> Outcome<()> {
        if self.interrupted.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
    }
}

/// `text` in lines of at most `width` characters, broken between words; a word that is longer is broken itself.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut rest: &str = word;
        loop {
            let line = lines.last_mut().expect("there is one");
            let used = line.chars().count();
            let gap = usize::from(used > 0);
            if used + gap + rest.chars().count() <= width {
                line.push_str(if gap == 1 { " " } else { "" });
                line.push_str(rest);
                break;
            }
            if used > 0 {
                lines.push(String::new());
                continue;
            }
            let cut = rest.char_indices().nth(width).map_or(rest.len(), |(at, _)| at);
            line.push_str(&rest[..cut]);
            rest = &rest[cut..];
            lines.push(String::new());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_long_words_within() {
        assert_eq!(wrapped("", 5), [""]);
        assert_eq!(wrapped("ab cd ef", 5), ["ab cd", "ef"]);
        assert_eq!(wrapped("abcdefgh ij", 5), ["abcde", "fgh", "ij"]);
        assert_eq!(wrapped("✓✓✓✓✓✓", 5), ["✓✓✓✓✓", "✓"]);
    }
}
