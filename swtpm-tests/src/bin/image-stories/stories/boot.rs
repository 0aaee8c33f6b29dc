//! Machines that boot something else than what was signed.

use ironroot_lab::machine::{BOOT_DEADLINE, Power};

use crate::Outcome;
use crate::lab::{Lab, expect_log, first_svid};
use crate::stories::require;

/// One byte of every so many is changed, so that a boot cannot miss it.
const TAMPER_STEP_BYTES: u64 = 64 * 1024;

pub fn secure_boot_off(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    board.forget_keys()?;
    lab.server.kill();
    let mut machine = board.power_on(&lab.power())?;
    let line = expect_log(machine.shell()?, "the sealed cache is refused")?;
    require(line.contains("did not boot as it did"), &format!("refused for another reason: {line}"))?;
    lab.server.restart();
    first_svid(&mut machine)?;
    Ok("refused: the device did not boot as it did when the file was sealed; then served by the server".to_owned())
}

pub fn unsigned_kernel(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    board.unsign_kernel()?;
    let mut machine = board.power_on(&lab.power())?;
    machine.expect_console("Access Denied", BOOT_DEADLINE)?;
    require(!machine.console().contains("systemd"), "it boots")?;
    machine.cut();
    // The very same disk boots where nobody looks at signatures: it was the signature.
    board.forget_keys()?;
    let mut machine = board.power_on(&lab.power())?;
    first_svid(&mut machine)?;
    Ok("the firmware says Access Denied, and boots it with its keys taken out".to_owned())
}

pub fn tampered_root(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    board.tamper(board.partition("ironroot-root")?, TAMPER_STEP_BYTES)?;
    let mut machine = board.power_on(&Power { restarts: false, ..lab.power() })?;
    machine.expect_end(BOOT_DEADLINE)?;
    let console = machine.console();
    require(console.contains("dm-verity device corrupted"), &format!("it ended otherwise: {console}"))?;
    Ok("the kernel says dm-verity device corrupted, and the machine starts anew".to_owned())
}
