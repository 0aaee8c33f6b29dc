//! What every process shows: which it is, and since when.

use std::time::Duration;

use super::settings::sanitised;
use super::{Kind, Page};

impl Page {
    /// What runs, for how long, and how much memory it takes. `started` and `uptime_in_ms`: SPIRE; the others have the names that
    /// every program's client library of Prometheus gives them.
    pub fn process(&mut self, version: &str, trust_domain: &str, uptime: Duration, now_unix: i64) {
        let (version, trust_domain) = (sanitised(version), sanitised(trust_domain));
        self.spire("started", Kind::Gauge, "What runs")
            .about(&[("trust_domain_id", trust_domain.as_str()), ("version", version.as_str())], 1.0);
        self.spire("uptime_in_ms", Kind::Gauge, "How long it runs").sample(&[], uptime.as_millis() as f64);
        let began = now_unix as f64 - uptime.as_secs_f64();
        self.family("process_start_time_seconds".to_owned(), Kind::Gauge, "When the process began, UNIX time")
            .sample(&[], began.floor());
        if let Some(bytes) = resident_bytes() {
            self.family("process_resident_memory_bytes".to_owned(), Kind::Gauge, "Memory of the process")
                .sample(&[], bytes as f64);
        }
    }
}

/// Source: proc_pid_status(5).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_says_what_it_is_and_how_much_memory_it_has() {
        let mut page = Page::new("spire_agent", "ironroot_agent", &[]);
        page.process("0.1.0", "example.org", Duration::from_millis(1500), 1_800_000_000);
        let text = page.into_text();
        for line in [
            "spire_agent_started{trust_domain_id=\"example_org\",version=\"0_1_0\"} 1",
            "spire_agent_uptime_in_ms 1500",
            "process_start_time_seconds 1799999998",
            "# TYPE process_resident_memory_bytes gauge",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
