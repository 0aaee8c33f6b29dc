//! Local unix processes: who is on the other end of this socket?
//!
//! ```text
//!  accept ─► Peer (SO_PEERCRED, SO_PEERPIDFD, executable now) ─► UnixAttestor ─► attest_user ─► user, groups, job, unit, container
//!     │                                                            alive? · /proc/PID pinned · alive still?
//!     └────► Witnessed (who writes?) ─► SecondWrite ─────────────► attest ─► with path and hash, if an entry asks
//! ```
//! What holds: user and group are those of the process that connected; everything else was read from that very process
//! while it lived, and it wrote what was read ([`Witnessed`]). What cannot hold on Linux: that it is the one that reads the
//! answer (a socket can be inherited), and, for `unix:path`, `unix:sha256` and `unix:fs_verity`, that no other code runs in that program
//! (LD_PRELOAD, interpreters, [`ExecutableLink`]). So entries with these selectors name a user or a unit beside them.
//!
//! Everything here blocks (procfs, user database, hashing): call it under `spawn_blocking`, except [`Peer::of`] and
//! [`UnixAttestor::is_still`], which read a few lines that the kernel makes up and wait for nobody.

mod acknowledgement;
pub mod capabilities;
mod cgroup;
mod containers;
mod demand;
mod digests;
mod executable;
mod kept;
mod link;
mod names;
mod namespaces;
mod noted;
mod outage;
mod owner;
mod peer;
mod process;
mod refusal;
mod slurm;
mod systemd;
mod unix;
mod wide;
mod withheld;
mod witnessed;
mod writer;

pub use cgroup::CgroupUntold;
pub use containers::{
    ANSWER_DEADLINE as CONTAINER_DEADLINE, ClientProof, ContainerConfig, ContainerUntold, DockerConfig, KubeletConfig,
    KubeletError, KubeletPort, QuestionError, ServerProof, SocketTemplate, TemplateError,
};
pub use demand::Demand;
pub use link::{ExecutableLink, ExecutableSelectors};
pub use namespaces::Kind as NamespaceKind;
pub use peer::{Credentials, Peer};
pub use refusal::{MAX_SUPPLEMENTARY_GROUPS, WorkloadRefusal};
pub use slurm::JobUntold;
pub use systemd::{BusAddressError, BusError, SystemBus, UnitUntold};
pub use unix::{
    Attested, AttestorConfig, AttestorError, DEFAULT_SIZE_LIMIT, UnixAttestor, UnixAttestorConfig, WithheldSelector,
};
pub use withheld::Withheld;
pub use witnessed::{Report, SecondWrite, Silence, Voice, Witnessed};
pub use writer::{ConnectionWriter, WriterRefusal};
