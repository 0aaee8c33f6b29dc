//! What server and agent cost beside SPIRE's, each measured in the same run by the same client; one table, with ratios.
//!
//!   IRONROOT_SPIRE_BIN=DIR cargo bench --bench beside_spire     without it: our half alone
//!   IRONROOT_BIN=DIR                                            our binaries are there: another build of them
//!
//! On a busy machine the ratios hold better than the figures.

mod agents;
mod herd;
mod sizing;

use ironroot_lab::spire::is_given;

fn main() {
    println!("| what | Ironroot | SPIRE | ratio | goal |\n|---|---|---|---|---|");
    herd::report();
    agents::report();
}

/// What both makes' programs cost; SPIRE's only if its binaries are given.
pub struct Pair {
    /// Measured on Ironroot, in the unit of the row.
    pub ours: f64,
    /// Measured on SPIRE in the same run; none if its programs were not given.
    pub spires: Option<f64>,
}

/// One line of the table: figures with `digits` behind the point, the ratio where both are there.
pub fn row(what: &str, pair: &Pair, digits: usize, goal: &str) {
    let figure = |value: f64| format!("{value:.digits$}");
    let spires = pair.spires.map_or("-".to_owned(), figure);
    let ratio = pair.spires.map_or("-".to_owned(), |spires| format!("{:.2}", pair.ours / spires));
    println!("| {what} | {} | {spires} | {ratio} | {goal} |", figure(pair.ours));
}

/// Measures ours, and SPIRE's if it is there.
pub fn both<T>(ours: impl FnOnce() -> T, spires: impl FnOnce() -> T) -> (T, Option<T>) {
    (ours(), is_given().then(spires))
}

/// The two halves of one figure.
pub fn pair<T>(measured: &(T, Option<T>), figure: impl Fn(&T) -> f64) -> Pair {
    Pair { ours: figure(&measured.0), spires: measured.1.as_ref().map(figure) }
}

/// The value below which half of the samples lie.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
