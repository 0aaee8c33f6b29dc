//! Writes man pages and shell completions of both daemons from the descriptions of their command lines.
//!
//!   manuals DIRECTORY

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use clap_complete::Shell;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("manuals DIRECTORY");
        return ExitCode::from(64);
    };
    match write(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manuals: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> Result<(), Box<dyn Error>> {
    for mut command in [ironroot_agent::cli::Cli::description(), ironroot_server::cli::Cli::description()] {
        let name = command.get_name().to_owned();
        let man = directory.join(&name).join("man");
        std::fs::create_dir_all(&man)?;
        clap_mangen::generate_to(command.clone(), &man)?;
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut command, &name, directory.join(&name))?;
        }
    }
    Ok(())
}
