//! Boots the device image of `scripts/image`, as a device would be booted, and has it live through what devices live through.
//!
//!   image-stories [--arch NAME] [--cuts N] [STORY...]    in the root of the tree; every story, or these
//!   image-stories --list                                 their names
//!
//! A server with its token runs on this machine, and is all that the guest can reach. `scripts/test-image` builds what this needs.

mod figures;
mod lab;
mod stories;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use ironroot_lab::machine::Architecture;
use lab::Lab;
use stories::{STORIES, Story};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Exit code for a wrong command line. Source: sysexits.h, EX_USAGE.
const EXIT_USAGE: u8 = 64;
const USAGE: &str = "image-stories [--arch NAME] [--cuts N] [STORY...]    every story, or these
image-stories --list                                 their names
";
/// Power cuts of a short run.
const FEW_CUTS: u32 = 3;

struct Wanted {
    architecture: Architecture,
    cuts: u32,
    stories: Vec<&'static Story>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["--list"] {
        STORIES.iter().for_each(|story| println!("{:<16} {}", story.name, story.claim));
        return ExitCode::SUCCESS;
    }
    let Some(wanted) = wanted(&arguments) else {
        eprint!("{USAGE}");
        return ExitCode::from(EXIT_USAGE);
    };
    match tell(&wanted) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("test-image: {error}");
            ExitCode::FAILURE
        }
    }
}

fn wanted(arguments: &[String]) -> Option<Wanted> {
    let mut wanted = Wanted { architecture: Architecture::Amd64, cuts: FEW_CUTS, stories: Vec::new() };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--arch" => {
                let name = rest.next()?;
                wanted.architecture = Architecture::ALL.into_iter().find(|kind| kind.name() == name)?;
            }
            "--cuts" => wanted.cuts = rest.next()?.parse().ok()?,
            name => wanted.stories.push(STORIES.iter().find(|story| story.name == name)?),
        }
    }
    // In their own order.
    let all = wanted.stories.is_empty();
    let named: Vec<&str> = wanted.stories.iter().map(|story| story.name).collect();
    wanted.stories = STORIES.iter().filter(|story| all || named.contains(&story.name)).collect();
    Some(wanted)
}

/// How many stories went wrong.
fn tell(wanted: &Wanted) -> Outcome<usize> {
    let began = Instant::now();
    let mut lab = Lab::begin(wanted.architecture, wanted.cuts)?;
    let mut failed = 0;
    for story in &wanted.stories {
        let since = Instant::now();
        let ended = (story.tell)(&mut lab);
        let took = since.elapsed().as_secs();
        match ended {
            Ok(facts) => println!("ok      {:<16} {} ({took} s): {facts}", story.name, story.claim),
            Err(error) => {
                failed += 1;
                println!("FAILED  {:<16} {} ({took} s): {error}", story.name, story.claim);
            }
        }
        // Each story finds the server as the first one did.
        lab.settle();
    }
    println!("\n{} stories, {failed} failed, {} s", wanted.stories.len(), began.elapsed().as_secs());
    Ok(failed)
}
