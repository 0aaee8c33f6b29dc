//! From an entry that is created to the stream of the workload it is for, while a fleet listens; and what an agent costs that has
//! nothing to do: bytes on the wire and wake-ups.
//!
//!   cargo bench -p ironroot-swtpm-tests --bench push              # the idle half takes ten minutes
//!   cargo bench -p ironroot-swtpm-tests --bench push -- latency

mod fleet;
mod idle;
mod latency;

fn main() {
    let only = std::env::args().nth(1).filter(|word| !word.starts_with('-'));
    println!("| what | measured | goal |\n|---|---|---|");
    if only.as_deref().is_none_or(|only| only == "latency") {
        latency::report();
    }
    if only.as_deref().is_none_or(|only| only == "idle") {
        idle::report();
    }
}

/// One line of the report.
fn row(what: &str, measured: &str, goal: &str) {
    println!("| {what} | {measured} | {goal} |");
}

/// The value below which `share` (0 to 1) of the samples lie.
fn percentile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[((samples.len() - 1) as f64 * share).round() as usize]
}
