//! What happened, for people who sign it and for programs that keep it.

use std::fmt::Write;

use serde_json::{Map, Value};

/// What happened, section by section, each a list of names and values.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    title: String,
    sections: Vec<(&'static str, Vec<(String, String)>)>,
    next: Vec<String>,
}

impl Transcript {
    pub(super) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    pub(super) fn section(&mut self, name: &'static str, lines: Vec<(String, String)>) {
        self.sections.push((name, lines));
    }

    /// What to do with the result: commands.
    pub(super) fn next(&mut self, commands: impl IntoIterator<Item = String>) {
        self.next.extend(commands);
    }

    /// For paper: with lines for two people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n{}\n", self.title, "=".repeat(self.title.chars().count()));
        for (name, lines) in &self.sections {
            let _ = writeln!(text, "\n{name}");
            let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
            for (name, value) in lines {
                let _ = writeln!(text, "  {name:<width$} : {value}");
            }
        }
        if !self.next.is_empty() {
            text.push_str("\nWhat comes next\n");
            self.next.iter().for_each(|command| text.push_str(&format!("  {command}\n")));
        }
        text.push_str(
            "\nWe were there from the beginning to the end, compared the fingerprints above with what was shown, and saw nothing else done.\n",
        );
        for _ in 0..2 {
            text.push_str("\n  Name ______________________________  Signature ______________________________  Date ______________\n");
        }
        text
    }

    /// For programs: an object of objects.
    pub(super) fn json(&self) -> Value {
        let object = |lines: &[(String, String)]| {
            let fields = lines.iter().map(|(name, value)| (key(name), Value::from(value.clone())));
            Value::Object(fields.collect::<Map<_, _>>())
        };
        let mut all: Map<_, _> = self.sections.iter().map(|(name, lines)| (key(name), object(lines))).collect();
        all.insert("title".to_owned(), self.title.clone().into());
        all.insert("next".to_owned(), self.next.clone().into());
        Value::Object(all)
    }
}

/// A line of a transcript.
pub(super) fn line(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

/// `Subject key ID` becomes `subject_key_id`.
fn key(name: &str) -> String {
    name.to_lowercase().replace([' ', '-'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paper_has_lines_for_two_and_the_json_says_the_same() {
        let mut transcript = Transcript::new("A root");
        transcript.section("Token", vec![line("Label", "ROOT"), line("Serial number", "01")]);
        transcript.next(["do this".to_owned()]);
        let text = transcript.text();
        assert_eq!(text.matches("Signature ___").count(), 2);
        assert!(
            text.contains("  Label         : ROOT\n  Serial number : 01\n") && text.contains("  do this\n"),
            "{text}"
        );
        let json = transcript.json();
        assert_eq!((&json["token"]["serial_number"], &json["next"][0]), (&Value::from("01"), &Value::from("do this")));
    }
}
