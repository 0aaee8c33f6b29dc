//! What a process that holds secrets denies itself and others before it holds any.

mod capabilities;
mod stop;
pub mod supervisor;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;

pub use capabilities::{Capability, CapabilityError, drop_all_except};
pub use stop::stop_asked;

/// Why the process could not be closed.
#[derive(Debug, Error)]
#[error("cannot {doing}")]
pub struct ProcessError {
    doing: &'static str,
    #[source]
    source: nix::Error,
}

/// Closes the process: no core dump, no debugger or memory reader of the same user, no privilege gained by a program that it
/// starts.
///
/// Keys and PINs are in this memory; a dump would put copies on a disk. Sources: prctl(2) PR_SET_DUMPABLE and
/// PR_SET_NO_NEW_PRIVS, setrlimit(2) RLIMIT_CORE.
pub fn close() -> Result<(), ProcessError> {
    let failed = |doing| move |source| ProcessError { doing, source };
    prctl::set_dumpable(false).map_err(failed("forbid core dumps"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("set the limit of core dumps to zero"))?;
    prctl::set_no_new_privs().map_err(failed("give up gaining privileges"))
}

/// Lets this process open `wanted` files and sockets, or as many as the operator grants if that is less. How many it may open now.
pub fn raise_descriptor_limit(wanted: u64) -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    //= FLT-S23 server faults: "the daemon takes what the system grants it"
    let limit = at_most(hard, wanted).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?;
    Ok(wide(limit))
}

/// The kernel's number, which has 32 bits on some machines.
fn at_most<N: TryFrom<u64> + Ord + Copy>(hard: N, wanted: u64) -> N {
    N::try_from(wanted).unwrap_or(hard).min(hard)
}

fn wide(limit: impl Into<u64>) -> u64 {
    limit.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    //= FLT-S23
    #[test]
    fn the_descriptor_limit_is_raised_to_what_is_granted_and_never_lowered() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("asked");
        assert_eq!(raise_descriptor_limit(1), Ok(soft));
        assert_eq!(raise_descriptor_limit(u64::MAX), Ok(hard));
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((hard, hard)));
        assert_eq!((at_most(9u32, 7), at_most(9u32, u64::MAX)), (7, 9));
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("set back");
    }
}
