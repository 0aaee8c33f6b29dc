//! Lines that operators read, so that a test types the very same.

const HANDBOOK: &str = include_str!("../../docs/handbook.md");

/// The indented block of `docs/handbook.md` whose first line begins so, without its indentation.
pub fn block(beginning: &str) -> String {
    let from = HANDBOOK.find(&format!("\n    {beginning}")).expect("the handbook shows it");
    let block = HANDBOOK[from + 1..].lines().take_while(|line| line.starts_with("    "));
    block.map(str::trim).collect::<Vec<_>>().join("\n")
}
