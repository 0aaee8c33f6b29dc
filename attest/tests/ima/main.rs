//! Lists of measured files (IMA): a real one leads to the register of the same boot, and what lies does not get past.

mod hostile;
mod real;

use ironroot_attest::ima::{ImaError, Measured, Reached, Replay};
use ironroot_attest::node::tpm2::PcrHash;
use ironroot_software_tpm::ImaList;

const BANK: PcrHash = PcrHash::Sha256;

/// Everything that a list tells on its way to that register.
fn replay(list: &[u8], quoted: [u8; 32]) -> Result<(Reached, Vec<Measured>), ImaError> {
    let mut told = Vec::new();
    let reached = Replay::new(BANK, quoted.to_vec()).extend(list, |measured| told.push(measured))?;
    Ok((reached, told))
}

fn refusal(list: &[u8]) -> ImaError {
    replay(list, [0xee; 32]).expect_err("refused")
}

/// A machine with a few programs.
fn programs() -> ImaList {
    let mut list = ImaList::begun(&[[3; 32]; 10]);
    list.measure("/init", b"init");
    list.measure("/bin/sh", b"a shell");
    list
}

fn file(path: &str, digest: String) -> Measured {
    Measured::File { path: path.into(), digest }
}
