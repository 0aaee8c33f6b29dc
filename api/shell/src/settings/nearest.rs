//! What a misspelt key was probably meant to be.

/// The known key that differs from `key` by at most two letters.
pub(super) fn nearest<'k>(key: &str, known: impl Iterator<Item = &'k String>) -> Option<&'k String> {
    known.map(|candidate| (distance(key, candidate), candidate)).filter(|(d, _)| *d <= 2).min().map(|(_, k)| k)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_slip_and_guesses_no_further() {
        let known = ["trust_domain", "bind_port", "data_dir"].map(str::to_owned);
        for (key, wanted) in [
            ("trust_domian", Some("trust_domain")),
            ("trustdomain", Some("trust_domain")),
            ("bind_prt", Some("bind_port")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(key, known.iter()).map(String::as_str), wanted, "{key}");
        }
        assert_eq!((distance("", "abc"), distance("abc", "abc"), distance("kitten", "sitting")), (3, 0, 3));
    }
}
