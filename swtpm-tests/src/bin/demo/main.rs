//! The main job, shown: a device proves its TPM, its workloads hold SVIDs, online and offline.
//!
//!   demo          runs it and leaves nothing behind
//!   demo --step   waits for Enter before each chapter
//!   demo --keep   leaves the lab up and says how to look around, until Enter or Ctrl-C
//!
//! Ctrl-C ends it at the next step, and whatever the lab made goes with it.

mod chapters;
mod look_around;
mod story;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use chapters::Lab;
use story::Story;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "demo          shows the main job on a software TPM and a software HSM, and leaves nothing behind
demo --step   waits for Enter before each chapter: each fits a screen of 80 columns
demo --keep   leaves the lab up and says how to look around, until Enter or Ctrl-C
";
/// Exit code for a wrong command line. Source: sysexits.h, EX_USAGE.
const EXIT_USAGE: u8 = 64;
/// What a shell hears of a process that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

/// What the command line asks for.
#[derive(Clone, Copy, Default)]
struct Wishes {
    keep: bool,
    step: bool,
}

impl Wishes {
    /// None if it asks for something else.
    fn parse(arguments: impl IntoIterator<Item = String>) -> Option<Self> {
        let mut wishes = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--keep" => wishes.keep = true,
                "--step" => wishes.step = true,
                _ => return None,
            }
        }
        Some(wishes)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if matches!(arguments.as_slice(), [only] if ["--help", "-h", "-help"].contains(&only.as_str())) {
        // Whoever closed the pipe has read enough.
        let _ = io::stdout().write_all(USAGE.as_bytes());
        return ExitCode::SUCCESS;
    }
    let Some(wishes) = Wishes::parse(arguments) else {
        eprint!("{USAGE}");
        return ExitCode::from(EXIT_USAGE);
    };
    let (interrupted, interruption) = watch_for_ctrl_c();
    match run(wishes, interrupted.clone(), &interruption) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(error.as_ref()) => ExitCode::FAILURE,
        Err(_) if interrupted.load(Ordering::Relaxed) => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) => {
            eprintln!("\n  ✗ {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(wishes: Wishes, interrupted: Arc<AtomicBool>, interruption: &mpsc::Receiver<()>) -> Outcome<()> {
    let mut lab = Lab::begin(Story::begin(wishes.step, interrupted)?)?;
    lab.enrol()?;
    lab.attest()?;
    lab.turn_an_intruder_away()?;
    lab.serve()?;
    lab.talk()?;
    let token = lab.sign_a_token()?;
    lab.lose_power(&token)?;
    lab.rob()?;
    lab.catch_up()?;
    lab.boot_something_else()?;
    lab.rotate()?;
    if wishes.keep {
        lab.story.end()?;
        return look_around::look_around(&lab, interruption);
    }
    lab.ban()?;
    lab.story.end()
}

/// Raised, and told, at the first Ctrl-C. The handler is the process's alone: programs that the lab starts do not inherit it.
fn watch_for_ctrl_c() -> (Arc<AtomicBool>, mpsc::Receiver<()>) {
    let interrupted = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let raised = interrupted.clone();
    std::thread::spawn(move || {
        let waited = runtime().is_ok_and(|runtime| runtime.block_on(tokio::signal::ctrl_c()).is_ok());
        raised.store(waited, Ordering::Relaxed);
        // The demo may be over.
        let _ = sender.send(());
    });
    (interrupted, receiver)
}

fn is_closed_pipe(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
