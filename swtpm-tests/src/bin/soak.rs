//! `scripts/soak`: rotation under fire, for as many minutes as it is told.

use std::process::ExitCode;
use std::time::Duration;

use ironroot_lab::soak::Soak;

const AGENTS: usize = 20;

fn main() -> ExitCode {
    let Some(minutes) =
        std::env::args().nth(1).and_then(|text| text.parse::<u64>().ok()).filter(|minutes| *minutes > 0)
    else {
        eprintln!("usage: soak MINUTES");
        return ExitCode::from(64);
    };
    let duration = Duration::from_secs(60 * minutes);
    println!("{AGENTS} agents, CAs of a minute, SVIDs of 10 s, the server killed each minute, for {minutes} min");
    let seen = Soak { agents: AGENTS, duration, kill_every: Duration::from_secs(60) }.run();
    print!("{seen}");
    if seen.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
