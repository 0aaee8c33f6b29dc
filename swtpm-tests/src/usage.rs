//! What the kernel says a process has used.

use std::fs;

/// Of `/proc`'s times, on every Linux that this is run on (USER_HZ).
const TICKS_A_SECOND: f64 = 100.0;

/// CPU time of all threads, ms.
pub fn cpu_ms(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let nanoseconds = |thread: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    threads.filter_map(nanoseconds).sum::<f64>() / 1e6
}

/// CPU time of all threads, those that have ended too, ms, to the kernel's tick: for a process whose threads come and go. Source:
/// proc(5), stat, fields 14 and 15.
pub fn whole_cpu_ms(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let behind_name = text.rsplit_once(')').expect("a name in brackets").1;
    let ticks: f64 =
        behind_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks * 1e3 / TICKS_A_SECOND
}

/// Proportional set size, MB: its memory, with what it shares divided among those who share it.
pub fn pss_mb(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process lives");
    let line = text.lines().find(|line| line.starts_with("Pss:")).expect("a Pss line");
    let kilobytes: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kilobytes / 1024.0
}

/// The most memory that the process has had at once, MB; none once it has ended.
pub fn peak_mb(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kilobytes| kilobytes / 1024.0)
}
