//! Examples in help that can be pasted: a line that is too wide for a terminal is broken where a shell goes on reading.

use clap::Command;

/// The widest line, characters: terminals have at least 80 columns.
const WIDTH: usize = 78;
/// Before an example, and before what goes on.
const MARK: &str = "Example: ";
const NEXT: &str = "    ";
/// First words of what is pasted.
const PROGRAMS: [&str; 3] = ["ironroot-agent ", "ironroot-server ", "openssl "];

/// The command and all below it, with every example in a form that no terminal breaks.
pub fn with_whole_examples(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let help = command.get_after_help().map(|help| broken(&help.to_string()));
    let command = match help {
        Some(help) => command.after_help(help),
        None => command,
    };
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_whole_examples))
}

fn broken(help: &str) -> String {
    help.lines()
        .map(|line| if is_example(line) { broken_line(line) } else { line.to_owned() })
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_example(line: &str) -> bool {
    let begins = |text: &str| PROGRAMS.iter().any(|program| text.starts_with(program));
    line.strip_prefix(MARK).is_some_and(begins) || (line.starts_with("  ") && begins(line.trim_start()))
}

/// Broken at blanks that are in no quotes, and never before a comment.
fn broken_line(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let (mut lines, mut current) = (Vec::new(), " ".repeat(indent));
    for word in words(line.trim_start()) {
        let is_first = current.trim_start().is_empty();
        let width = current.chars().count() + 1 + word.chars().count();
        // What ends a line takes two characters more.
        if !is_first && width + 2 > WIDTH && !word.starts_with('#') {
            lines.push(format!("{current} \\"));
            current = " ".repeat(indent) + NEXT;
        } else if !is_first {
            current.push(' ');
        }
        current.push_str(word);
    }
    lines.push(current);
    lines.join("\n")
}

/// At blanks outside of quotes; a comment is one word.
fn words(line: &str) -> Vec<&str> {
    let (mut found, mut begin, mut quote) = (Vec::new(), 0, None);
    for (at, letter) in line.char_indices() {
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (letter, Some(open)) if letter == open => quote = None,
            ('#', None) if at == begin => break,
            (' ', None) => {
                found.push(&line[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    found.push(&line[begin..]);
    found.retain(|word| !word.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_example_is_broken_where_a_shell_goes_on() {
        let long = format!(
            "Words about it {}\n\nExample: ironroot-agent deliver -name \"a b c\" {}-- nginx",
            "x".repeat(90),
            "-flag value ".repeat(6)
        );
        let help = broken(&long);
        let lines: Vec<&str> = help.lines().collect();
        assert_eq!(lines[0].len(), 105, "prose is the terminal's");
        assert!(lines[2..].iter().all(|line| line.chars().count() <= WIDTH), "{help}");
        assert!(lines[2].ends_with(" \\") && lines[3].starts_with(NEXT) && help.contains("\"a b c\""), "{help}");
        let pasted: Vec<&str> = lines[2..].iter().map(|line| line.trim_end_matches('\\').trim()).collect();
        assert_eq!(pasted.join(" "), long.lines().last().unwrap_or_default());
        for kept in [
            "Example: ironroot-agent status",
            "  ironroot-server x   # and a comment of the line",
            "ironroot-agent reads it",
        ] {
            assert_eq!(
                broken(kept).split_whitespace().collect::<Vec<_>>(),
                kept.split_whitespace().collect::<Vec<_>>()
            );
        }
    }
}
