//! What benches make of many measurements of one thing.

/// The value below which `share` (0 to 1) of the samples lie. Sorts them.
pub fn percentile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[((samples.len() - 1) as f64 * share).round() as usize]
}
