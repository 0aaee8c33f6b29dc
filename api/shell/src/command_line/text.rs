//! Words for people.

use std::fmt::{Display, Write};

use crate::printable::shown;

/// Longest cell, characters: an agent's SPIFFE ID fits. Of what is longer the whole is in the other forms of an answer.
const MAX_CELL: usize = 128;

/// Rows below a head, in columns as wide as what is in them.
pub fn table<const COLUMNS: usize>(head: &[&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let rows: Vec<[String; COLUMNS]> = rows.iter().map(|row| std::array::from_fn(|column| cut(&row[column]))).collect();
    let widest = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: [usize; COLUMNS] = std::array::from_fn(widest);
    let line = |cells: [&str; COLUMNS]| {
        let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let rows = rows.iter().map(|row| line(std::array::from_fn(|column| row[column].as_str())));
    std::iter::once(line(*head)).chain(rows).collect()
}

fn cut(cell: &str) -> String {
    let cell = shown(cell).into_string();
    match cell.chars().nth(MAX_CELL) {
        None => cell,
        Some(_) => cell.chars().take(MAX_CELL - 1).chain(['…']).collect(),
    }
}

/// Appends a line: a label as wide as `width`, and a value, which stays one line whatever it holds.
pub fn labelled(text: &mut String, width: usize, label: &str, value: impl Display) {
    writeln!(text, "{label:<width$}: {}", shown(value)).expect("writing to a string cannot fail");
}

/// `1 agent`, `2 agents`.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let noun = if count == N::from(1) { one } else { many };
    format!("{count} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them_also_in_letters_of_two_bytes() {
        let rows = [["Köln".to_owned(), "a".to_owned()], [String::new(), "bb".to_owned()]];
        assert_eq!(table(&["SITE", "X"], &rows), "SITE  X\nKöln  a\n      bb\n");
        assert_eq!(table(&["SITE"], &[]), "SITE\n");
        assert_eq!(table(&["X", "Y"], &[["a\nb\t".into(), "c".into()]]), "X       Y\na\\nb\\t  c\n");
        let long = ["ö".repeat(MAX_CELL), "ö".repeat(MAX_CELL + 1)].map(|text| [text]);
        let told = table(&["X"], &long);
        let lines: Vec<&str> = told.lines().skip(1).collect();
        assert_eq!((lines[0], lines[1]), (&*long[0][0], &*format!("{}…", "ö".repeat(MAX_CELL - 1))));
    }
}
