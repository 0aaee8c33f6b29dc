//! Chips that are not like swtpm fresh from the factory: other endorsement keys, odd NV indices, keys that somebody made
//! persistent, passwords, other PCR banks, self-tests, answers that are cut.

mod bench;
mod certificates;
mod faults;
mod hierarchies;
mod pcr_banks;
mod persistent_keys;
