//! Why nothing is told of a process's container.

use std::path::PathBuf;

use thiserror::Error;

use super::kubelet::KubeletError;
use super::question::QuestionError;

/// Most selectors of one container or pod. A pod in a cluster has some fifty.
pub(in crate::workload) const MAX_SELECTORS: usize = 512;

/// See the module. The process keeps its other selectors.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum ContainerUntold {
    /// Of several hierarchies, or of one path that was made by hand.
    #[error("its control groups name the containers {0} and {1}")]
    Several(String, String),
    /// Whoever was asked did not answer, or not so that it can be used.
    #[error(transparent)]
    Question(#[from] QuestionError),
    /// Another version, or no such daemon at all.
    #[error("{place} answered what cannot be read")]
    Malformed {
        place: String,
        #[source]
        error: serde_json::Error,
    },
    /// A daemon that answers for something else.
    #[error("{place} was asked for the container {asked} and answered for {answered:?}")]
    OtherContainer { place: String, asked: String, answered: String },
    /// It ended, or was never there.
    #[error("the container {0} does not run")]
    NotRunning(String),
    /// It ended while it was looked at.
    #[error("the first process of the container {0} ended while it was looked at")]
    Gone(String),
    /// Somebody made a control group of a container's name.
    #[error("the container {0} runs in another control group than the process, which is not in it")]
    NotInContainer(String),
    /// Anybody can be its podman.
    #[error(
        "the container is of user {0}'s own podman, who can say of it what it likes; podman_socket_path_template tells it all the same"
    )]
    Rootless(u32),
    /// What listens there is not that user's.
    #[error("{socket} belongs to user {owner}, not to user {expected}")]
    NotTheirSocket { socket: PathBuf, owner: u32, expected: u32 },
    /// The process does not belong to what was asked about any more.
    #[error("the process was moved into another control group meanwhile")]
    Moved,
    /// More than are looked at.
    #[error("its container has more than {max} selectors", max = MAX_SELECTORS)]
    TooMany,
    /// The files that are needed to ask.
    #[error("the kubelet cannot be asked")]
    Kubelet(#[from] KubeletError),
    /// The kubelet does not know of it.
    #[error("the kubelet knows no pod with the container {0}")]
    NoPod(String),
    /// It has never known of it since the process connected: a pod that starts is in its list only after a while.
    #[error("the kubelet knows no pod with the container {0} yet")]
    NoPodYet(String),
    /// A group that anybody could have made who was given one above it, or a layout that is not known here.
    #[error(
        "its control group {0:?} is called after a pod, but is not where kubelets make them as the agent sees it (/kubepods, /kubelet/kubepods, \
         /NAME.slice/NAME-kubepods.slice): a user or a container could have made it"
    )]
    StrangePod(String),
    /// Nothing says which container of the pod it is in.
    #[error("its control group {0:?} is a pod's, and no container's that has an ID")]
    NoContainer(String),
    /// The kubelet contradicts itself.
    #[error("the kubelet knows two pods with the container {0}")]
    TwoPods(String),
}

impl ContainerUntold {
    /// Whether nobody could be asked, which says nothing about the container.
    pub(super) fn is_unanswered(&self) -> bool {
        match self {
            Self::Question(error) => error.is_unasked(),
            Self::Kubelet(_) => true,
            _ => false,
        }
    }

    /// Whether the next answer may well be another one.
    pub(in crate::workload) fn is_unasked(&self) -> bool {
        self.is_unanswered() || matches!(self, Self::NoPodYet(_))
    }

    /// The same of a process of which nothing was ever proven.
    pub(super) fn of_a_newcomer(self) -> Self {
        match self {
            Self::NoPod(id) => Self::NoPodYet(id),
            why => why,
        }
    }
}
