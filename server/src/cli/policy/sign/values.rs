//! The values of the registers that are signed: from the command line, from a policy that was learned, from a golden boot's log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use ironroot_attest::event_log::{EventLog, MAX_LOG_BYTES};
use ironroot_attest::node::tpm2::{PcrHash, PcrSelection};
use ironroot_shell::command_line::CommandError;

use super::super::document;
use crate::devices::NewPolicy;
use crate::facts::device::PcrValue;

/// Where the values come from: exactly one of three.
#[derive(Debug, Args)]
pub(super) struct Values {
    /// A register and its value; repeat for more
    #[arg(long, value_name = "PCR=HEX", required_unless_present_any = ["file", "event_log"], conflicts_with_all = ["file", "event_log", "pcrs"])]
    pcr: Vec<Register>,
    /// A policy, as "policy show NAME -output json" prints it; - for standard input
    #[arg(id = "file", long = "values", value_name = "PATH", conflicts_with = "event_log")]
    file: Option<PathBuf>,
    /// Which alternative of it, from 1, if there are several
    #[arg(long, value_name = "NUMBER", requires = "file")]
    alternative: Option<usize>,
    /// The log of a boot that is good, as the kernel gives it (binary_bios_measurements)
    #[arg(id = "event_log", long = "eventLog", value_name = "PATH")]
    event_log: Option<PathBuf>,
    /// The registers to take of it, as 0,2,4,7: those of the agents' offline_cache
    #[arg(long, value_name = "PCRS", default_value = "7")]
    pcrs: PcrSelection,
    /// Their bank: sha256, sha384, sha512 or sha1; a file of values says it itself
    #[arg(long, value_name = "BANK", default_value_t)]
    bank: PcrHash,
}

type Registers = BTreeMap<u8, Vec<u8>>;

impl Values {
    pub(super) fn read(&self) -> Result<(PcrHash, Registers), CommandError> {
        let said = match (&self.file, &self.event_log) {
            (Some(path), _) => self.of_policy(path),
            (None, Some(path)) => Ok((self.bank, self.of_log(path)?)),
            (None, None) => self.of_arguments(),
        };
        said.map_err(CommandError::Usage)
    }

    fn of_arguments(&self) -> Result<(PcrHash, Registers), String> {
        let registers: Registers = self.pcr.iter().map(|register| (register.pcr, register.value.clone())).collect();
        if registers.len() < self.pcr.len() {
            return Err("a register is given twice".to_owned());
        }
        Ok((self.bank, registers))
    }

    fn of_policy(&self, path: &Path) -> Result<(PcrHash, Registers), String> {
        let policy = NewPolicy::from_pb(&document::read(path)?)
            .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        let alternatives = &policy.policy().alternatives;
        let place = match self.alternative {
            None if alternatives.len() > 1 => {
                return Err(format!("it has {} alternatives: say which with -alternative", alternatives.len()));
            }
            number => number.unwrap_or(1).wrapping_sub(1),
        };
        let alternative = alternatives.get(place).ok_or("it has no such alternative")?;
        let registers = self.pcrs.indices().map(|pcr| match alternative.pcrs.get(&pcr) {
            Some(value) => Ok((pcr, value.0.clone())),
            None => Err(format!("it says nothing of PCR {pcr}: choose registers with -pcrs")),
        });
        Ok((alternative.bank, registers.collect::<Result<_, _>>()?))
    }

    fn of_log(&self, path: &Path) -> Result<Registers, CommandError> {
        let log = EventLog::parse(&read_binary(path, MAX_LOG_BYTES)?).map_err(|error| refused(path, &error))?;
        log.registers(self.bank, self.pcrs).map_err(|error| refused(path, &error))
    }
}

/// A file of at most `max_bytes`.
pub(super) fn read_binary(path: &Path, max_bytes: usize) -> Result<Vec<u8>, CommandError> {
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(max_bytes as u64 + 1).read_to_end(&mut bytes));
    file.map_err(|error| refused(path, &error))?;
    if bytes.len() > max_bytes {
        return Err(refused(path, &format!("longer than {max_bytes} bytes: is it the right file?")));
    }
    Ok(bytes)
}

fn refused(path: &Path, why: &impl ToString) -> CommandError {
    CommandError::Usage(format!("{}: {}", path.display(), why.to_string()))
}

/// `7=<hex>`.
#[derive(Clone, Debug)]
struct Register {
    pcr: u8,
    value: Vec<u8>,
}

impl FromStr for Register {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pcr, value) = text.split_once('=').ok_or("give a register and its value, such as 7=65ca...")?;
        let pcr = pcr.trim().parse().map_err(|_| "the register is no number")?;
        let value = value.trim().parse::<PcrValue>().map_err(|_| "the value is not hexadecimal digits")?.0;
        Ok(Self { pcr, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_is_a_number_and_digits() {
        let register: Register = " 7 = 5A00".parse().expect("legal");
        assert_eq!((register.pcr, register.value), (7, vec![0x5a, 0]));
        for text in ["7", "x=00", "300=00", "7=zz", "7=abc"] {
            assert!(text.parse::<Register>().is_err(), "{text}");
        }
    }
}
