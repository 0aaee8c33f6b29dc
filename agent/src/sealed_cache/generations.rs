//! Which generation a file is written under, and when the chip's counter is raised. Pure.
//!
//! A file counts while the counter is at its generation, or one below: what a power cut between the two leaves. So a file that
//! was written and never raised to may have been copied and hidden, and another of the same generation be written later; the
//! next raise would make both count. A run that has not raised the counter yet cannot know. `model` explores all of it.

#[cfg(test)]
mod model;

/// What a write or a wipe does, in order. A power cut may come between any two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Raise the counter by one.
    Raise,
    /// Put the file on the disk under this generation, in one piece.
    Write(u64),
    /// Remove the file.
    Remove,
}

/// Whether a file of generation `file` may be believed while the chip's counter is at `counter`. One ahead is what a power
/// cut between writing and raising leaves.
pub fn is_current(file: u64, counter: u64) -> bool {
    //= TPM-37 TPM 2.0 Part 1, NV Memory: "its generation is below the counter in the chip"
    file == counter || Some(file) == counter.checked_add(1)
}

/// What this run knows of the files that are out there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Generation of the file that was written or read last, be it that the counter was never raised to it; 0 for none.
    newest: u64,
    /// This run has raised the counter: no file is above it that this run does not know of.
    has_raised: bool,
}

impl Seen {
    /// A file that counts was read, or one was written.
    pub fn file(&mut self, generation: u64) {
        self.newest = generation;
    }

    /// The counter was raised.
    pub fn raised(&mut self) {
        self.has_raised = true;
    }

    /// How to replace the file. With `increment`, every file written before is worthless afterwards.
    pub fn store(self, counter: u64, increment: bool) -> Vec<Step> {
        use Step::{Raise, Write};
        if Some(self.newest) == counter.checked_add(1) {
            // It becomes worthless too: the counter is raised to it, and past it.
            return vec![Raise, Write(counter + 2), Raise];
        }
        match (increment, self.has_raised) {
            (false, _) => vec![Write(counter)],
            (true, true) => vec![Write(counter + 1), Raise],
            // The first raise makes a hidden file of this generation count as well as ours; the second ends it.
            (true, false) => vec![Write(counter + 1), Raise, Write(counter + 2), Raise],
        }
    }

    /// How to remove the file so that no copy of any counts, whatever is interrupted.
    pub fn wipe(self, counter: u64) -> Vec<Step> {
        let may_be_ahead = !self.has_raised || self.newest > counter;
        let raises = if may_be_ahead { 2 } else { 1 };
        std::iter::repeat_n(Step::Raise, raises).chain([Step::Remove]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_between_write_and_increment_loses_nothing() {
        let counter = 7;
        assert!(is_current(7, counter), "before the write");
        assert!(is_current(8, counter), "written, not incremented");
        assert!(is_current(8, counter + 1), "incremented");
        assert!(!is_current(7, counter + 1), "the older file is worthless from then on");
        assert!(!is_current(9, counter) && !is_current(u64::MAX, 0) && !is_current(0, u64::MAX));
    }

    #[test]
    fn a_run_writes_twice_for_its_first_raise_and_once_for_each_after_it() {
        use Step::{Raise, Remove, Write};
        let mut seen = Seen::default();
        seen.file(7);
        assert_eq!(seen.store(7, false), [Write(7)]);
        assert_eq!(seen.store(7, true), [Write(8), Raise, Write(9), Raise]);
        assert_eq!(seen.wipe(7), [Raise, Raise, Remove]);
        seen.raised();
        assert_eq!(seen.store(7, true), [Write(8), Raise]);
        assert_eq!(seen.wipe(7), [Raise, Remove]);
        seen.file(8);
        assert_eq!(seen.store(7, false), [Raise, Write(9), Raise], "what the counter was never raised to");
        assert_eq!(seen.wipe(7), [Raise, Raise, Remove]);
    }
}
