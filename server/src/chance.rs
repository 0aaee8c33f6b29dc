//! Chance, for pauses that many servers are not to end together.

/// From 0 to 1.
pub fn unit() -> f64 {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).expect("the kernel's random numbers do not fail");
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}
