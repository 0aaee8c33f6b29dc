//! Commands of the machine.

use std::process::Command;

use crate::Outcome;

/// Runs a line of shell; what it said.
pub fn shell(line: &str) -> Outcome<String> {
    let done = Command::new("sh").args(["-euc", line]).output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    match done.status.success() {
        true => Ok(said),
        false => Err(format!("{line}: {said}{}", String::from_utf8_lossy(&done.stderr)).into()),
    }
}
