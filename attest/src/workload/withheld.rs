//! Why a selector is left out.

use std::path::PathBuf;

use thiserror::Error;

use super::cgroup::CgroupUntold;
use super::containers::ContainerUntold;
use super::namespaces::Kind;
use super::slurm::JobUntold;
use super::systemd::UnitUntold;
use super::witnessed::Silence;

/// Why a selector is left out. The caller keeps its other selectors: fewer never mean more rights.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum Withheld {
    /// For want of privilege.
    #[error(
        "the agent may not look at the executable: it needs CAP_SYS_PTRACE (and CAP_DAC_READ_SEARCH for unreadable ones)"
    )]
    NotAllowed(#[source] nix::Error),
    /// The connection did not show that what runs now is what asked.
    #[error(transparent)]
    Silent(#[from] Silence),
    /// Its user is root there.
    #[error(
        "the process is in another {0} namespace than the agent, where its user may have arranged what it seems to run"
    )]
    OtherNamespace(Kind),
    /// Of a container, or of a service that systemd confines.
    #[error(
        "the process has another mount namespace than the agent (a container, or PrivateTmp= or ProtectSystem= in its unit or the \
         agent's); executable_in_other_mounts = true tells all the same"
    )]
    OtherMounts,
    /// For want of descriptors, or the process was just ending.
    #[error("what the process ran when it connected could not be noted: let it connect again")]
    NotNoted,
    /// It became another program.
    #[error("the process runs another executable than when it connected")]
    Replaced,
    /// Nobody could say which file it was.
    #[error(
        "the executable has no name any more (deleted or replaced by an upgrade, or only in memory): restart the workload"
    )]
    Unlinked,
    /// A mount over it, or another file moved there.
    #[error("{0:?} is another file for the agent than for the process (replaced by an upgrade: restart the workload)")]
    OtherFile(PathBuf),
    /// Not UTF-8, too long or with control characters.
    #[error("{0:?} cannot be a selector")]
    Unspeakable(PathBuf),
    /// It is larger than the operator wants hashed; `size` in bytes.
    #[error("the executable has {size} bytes, more than workload_size_limit allows")]
    TooLarge { size: i64 },
    /// A large file or a slow disk.
    #[error("the executable could not be hashed in time")]
    TooSlow,
    /// Of `unix:fs_verity`.
    #[error(
        "the kernel does not guard what the executable holds: its file is not under fs-verity (seal it with \"fsverity enable\")"
    )]
    Unguarded,
    /// Somebody wrote to it.
    #[error("the executable changed while it was hashed")]
    Changed,
    /// The system refused.
    #[error("the executable cannot be read")]
    Read(#[source] std::io::Error),
    /// Not worth the work again yet.
    #[error("the executable could not be hashed a while ago and has not changed since")]
    FailedBefore,
    /// One user's programs take a share of the time only.
    #[error("hashing the programs of this user has taken more than its share of time; it is tried again later")]
    OverBudget,
    /// A delegate named it.
    #[error("the process was named by its number: what it runs is told only on a connection of its own")]
    Numbered,
    /// Of `unix:cgroup`.
    #[error(transparent)]
    Cgroup(#[from] CgroupUntold),
    /// Of `slurm:`.
    #[error(transparent)]
    Job(#[from] JobUntold),
    /// Of `systemd:id` and `systemd:fragment_path`.
    #[error(transparent)]
    Unit(#[from] UnitUntold),
    /// Of `docker:` and `k8s:`.
    #[error(transparent)]
    Container(#[from] ContainerUntold),
}

impl Withheld {
    /// Whether nobody could be asked about it: it may well be there.
    pub(super) fn is_unasked(&self) -> bool {
        match self {
            Self::Unit(UnitUntold::Unanswered(_)) => true,
            Self::Container(why) => why.is_unasked(),
            _ => false,
        }
    }

    /// Whether two looks at where the process belongs disagreed: somebody moved it, or it was just ending.
    pub(super) fn is_of_a_changed_place(&self) -> bool {
        matches!(self, Self::Unit(UnitUntold::Disagreement { .. }) | Self::Container(ContainerUntold::Moved))
    }
}
