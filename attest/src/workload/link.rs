//! Can users of this machine make a process look like any program that they may run?
//!
//! `/proc/PID/exe` belongs to the memory map, not to the process. Where the kernel has `prctl(PR_SET_MM_MAP)` and users may
//! make user namespaces, a child that shares the map (`CLONE_VM`) becomes root in a namespace of its own, changes the link,
//! and exits: the process never leaves the agent's namespaces, and nothing in /proc tells. Source: prctl(2), run on 6.18.

use std::fs;
use std::str::FromStr;

use rustix::process::virtual_memory_map_config_struct_size;

/// How many user namespaces may be made. Source: namespaces(7).
const MAX_USER_NAMESPACES: &str = "/proc/sys/user/max_user_namespaces";
/// Debian's switch: 0 leaves user namespaces to root. Not on other kernels.
const UNPRIVILEGED_USER_NAMESPACES: &str = "/proc/sys/kernel/unprivileged_userns_clone";

/// What the link to the executable is worth here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutableLink {
    /// Any local user can set it to any file that it may execute.
    Forgeable,
    /// The kernel was built without CONFIG_CHECKPOINT_RESTORE.
    NoSuchCall,
    /// Only root can make user namespaces.
    NoUserNamespaces,
}

/// When `unix:path`, `unix:sha256` and `unix:fs_verity` are told of a process. Source: ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecutableSelectors {
    /// Also where the link can be forged, as SPIRE does.
    #[default]
    Always,
    /// Only where no user can forge it: see [`ExecutableLink`].
    WhereUnforgeable,
    /// Of no process, whatever entries ask for.
    Never,
}

impl FromStr for ExecutableSelectors {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "always" => Ok(Self::Always),
            "where_unforgeable" => Ok(Self::WhereUnforgeable),
            "never" => Ok(Self::Never),
            _ => Err("use \"always\", \"where_unforgeable\" or \"never\""),
        }
    }
}

impl ExecutableLink {
    /// Asks this kernel.
    ///
    /// AppArmor's restriction of user namespaces is not counted: profiles of installed programs let them through, and a
    /// user can run code of its own in those (LD_PRELOAD).
    pub fn of_this_kernel() -> Self {
        let read = |path| fs::read_to_string(path).ok();
        Self::judge(
            virtual_memory_map_config_struct_size().is_ok(),
            read(MAX_USER_NAMESPACES).as_deref(),
            read(UNPRIVILEGED_USER_NAMESPACES).as_deref(),
        )
    }

    /// From what the kernel says: the call, and the two switches where there are such files. What cannot be read counts
    /// as open.
    fn judge(has_call: bool, max_user_namespaces: Option<&str>, unprivileged: Option<&str>) -> Self {
        let is_zero = |text: Option<&str>| text.is_some_and(|text| text.trim() == "0");
        match has_call {
            false => Self::NoSuchCall,
            true if is_zero(max_user_namespaces) || is_zero(unprivileged) => Self::NoUserNamespaces,
            true => Self::Forgeable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_unforgeable_without_the_call_or_without_user_namespaces_and_doubt_counts_as_forgeable() {
        for (has_call, max, unprivileged, expected) in [
            (true, Some("96365\n"), None, ExecutableLink::Forgeable),
            (true, Some("96365\n"), Some("1\n"), ExecutableLink::Forgeable),
            (true, None, None, ExecutableLink::Forgeable),
            (true, Some(""), Some("?"), ExecutableLink::Forgeable),
            (true, Some("0\n"), None, ExecutableLink::NoUserNamespaces),
            (true, Some("96365\n"), Some("0\n"), ExecutableLink::NoUserNamespaces),
            (false, Some("96365\n"), Some("1\n"), ExecutableLink::NoSuchCall),
        ] {
            assert_eq!(ExecutableLink::judge(has_call, max, unprivileged), expected, "{max:?} {unprivileged:?}");
        }
    }

    #[test]
    fn this_kernel_answers() {
        let max = fs::read_to_string(MAX_USER_NAMESPACES).expect("namespaces(7)");
        if max.trim() == "0" {
            assert_ne!(ExecutableLink::of_this_kernel(), ExecutableLink::Forgeable);
        }
    }
}
