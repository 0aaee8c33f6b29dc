//! `$NAME` and `${NAME}` in a configuration file, replaced only when the operator asked with `-expandEnv`.

/// `text` with each variable outside comments replaced by `lookup`'s answer; `$$` is a plain `$`.
///
/// `report` hears (line, reason) for a variable that is not set or would break the file's lines. SPIRE replaces an unset
/// variable by nothing; here that is a mistake, because `"$DIR/pin"` would silently become `/pin`.
pub(super) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>, report: impl Fn(u32, String)) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    let mut line = 1;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let taken = match comment_length(rest).filter(|_| !in_string) {
            Some(length) => copy(&mut expanded, rest, length),
            None if c == '\\' && in_string => copy(&mut expanded, rest, escape_length(rest)),
            None if c == '$' => replace_variable(&mut expanded, rest, &lookup, |reason| report(line, reason)),
            None => {
                in_string = if c == '"' { !in_string } else { in_string && c != '\n' };
                copy(&mut expanded, rest, c.len_utf8())
            }
        };
        line += rest[..taken].matches('\n').count() as u32;
        rest = &rest[taken..];
    }
    expanded
}

fn copy(to: &mut String, from: &str, length: usize) -> usize {
    to.push_str(&from[..length]);
    length
}

fn comment_length(text: &str) -> Option<usize> {
    if text.starts_with('#') || text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.starts_with("/*").then(|| text.find("*/").map_or(text.len(), |end| end + 2))
}

fn escape_length(text: &str) -> usize {
    1 + text[1..].chars().next().map_or(0, char::len_utf8)
}

/// Replaces the variable `text` begins with and gives the bytes of `text` it took.
fn replace_variable(
    to: &mut String,
    text: &str,
    lookup: impl Fn(&str) -> Option<String>,
    report: impl Fn(String),
) -> usize {
    let Some((name, length)) = variable(text) else {
        to.push('$');
        return if text.starts_with("$$") { 2 } else { 1 };
    };
    match lookup(name) {
        None => report(format!("environment variable {name} is not set")),
        Some(value) if value.contains(['\n', '\r']) => {
            report(format!("the value of environment variable {name} has more than one line"));
        }
        Some(value) => to.push_str(&value),
    }
    length
}

/// The variable's name and the bytes its mention takes.
fn variable(text: &str) -> Option<(&str, usize)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if let Some(rest) = text.strip_prefix("${") {
        let end = rest.find('}')?;
        return (end > 0 && rest[..end].chars().all(is_name)).then(|| (&rest[..end], end + 3));
    }
    let rest = &text[1..];
    let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
    (end > 0).then(|| (&rest[..end], end + 1))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn run(text: &str) -> (String, Vec<(u32, String)>) {
        let reports = RefCell::new(Vec::new());
        let lookup = |name: &str| match name {
            "TD" => Some("example.org".to_owned()),
            "PORT" => Some("8081".to_owned()),
            "LINES" => Some("a\nb".to_owned()),
            _ => None,
        };
        let expanded = expand(text, lookup, |line, reason| reports.borrow_mut().push((line, reason)));
        (expanded, reports.into_inner())
    }

    #[test]
    fn replaces_in_strings_and_bare_values_and_not_in_comments() {
        let text = "a = \"$TD/${TD}\" # $NOPE\nb = $PORT /* ${NOPE} */\nc = \"$$x // $TD\"\nd = \"\\\"# $TD\"\n";
        let wanted = "a = \"example.org/example.org\" # $NOPE\nb = 8081 /* ${NOPE} */\nc = \"$x // example.org\"\nd = \"\\\"# example.org\"\n";
        assert_eq!(run(text), (wanted.to_owned(), vec![]));
    }

    #[test]
    fn reports_unset_and_many_line_values_with_their_lines() {
        let (_, reports) = run("a = 1\nb = \"$NOPE/x\"\n\nc = \"${LINES}\"");
        assert_eq!(
            reports,
            vec![
                (2, "environment variable NOPE is not set".to_owned()),
                (4, "the value of environment variable LINES has more than one line".to_owned()),
            ]
        );
    }

    #[test]
    fn leaves_what_is_no_variable() {
        let text = "a = \"5$ ${ $} ${a-b}\"";
        assert_eq!(run(text), (text.to_owned(), vec![]));
    }
}
