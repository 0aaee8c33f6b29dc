//! Where sets of files come from: the Workload API with the keys that it hands out, or keys in a token with certificates for them.

use std::time::Duration;

use ironroot_api::SpiffeId;
use ironroot_api::pb::workload::X509svidResponse;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::{CommandError, shown};
use tonic::Streaming;

use super::super::api::{WorkloadSvid, WorkloadSvids};
use super::super::connection::Connection;
use super::files::{self, Directory, FilesAt};

/// A set to deliver.
pub(super) struct Set {
    pub(super) id: SpiffeId,
    /// When its certificate ends, UNIX seconds.
    pub(super) end: i64,
    /// When another one is to be made though the agent says nothing; none if it says so.
    pub(super) renewal: Option<Duration>,
    /// Its files, in the order in which they are written; some say in which directory they are.
    pub(super) files: Box<FilesAt>,
}

/// See the module.
pub(super) trait Source {
    /// What the agent says on its stream: the whole state, again at each change.
    type Answer: prost::Message;

    async fn stream(&self, connection: &Connection) -> Result<Streaming<Self::Answer>, CommandError>;

    /// The set that `answer` makes now. `directory` holds the one before.
    async fn set(
        &mut self,
        answer: &Self::Answer,
        directory: &Directory,
        connection: &Connection,
    ) -> Result<Set, CommandError>;

    /// Whoever uses the files has been told of the current set.
    fn told(&mut self, directory: &Directory) -> Result<(), CommandError>;
}

/// Identities of this process, with the keys that the agent made for them.
pub(super) struct HandedOut {
    pub(super) spiffe_id: Option<SpiffeId>,
}

impl Source for HandedOut {
    type Answer = X509svidResponse;

    async fn stream(&self, connection: &Connection) -> Result<Streaming<X509svidResponse>, CommandError> {
        connection.x509_svids().await
    }

    async fn set(
        &mut self,
        answer: &X509svidResponse,
        _directory: &Directory,
        _connection: &Connection,
    ) -> Result<Set, CommandError> {
        let svids = WorkloadSvids::verified(answer, wall_unix())?;
        let ids = svids.svids.iter().map(|svid| svid.id.to_string()).collect::<Vec<_>>();
        let svid: &WorkloadSvid = chosen(&svids.svids, |svid| &svid.id, self.spiffe_id.as_ref(), &ids)?;
        let files = files::of(svid, &svids.federated)?;
        Ok(Set { id: svid.id.clone(), end: svid.end(), renewal: None, files: Box::new(move |_| files.clone()) })
    }

    fn told(&mut self, _directory: &Directory) -> Result<(), CommandError> {
        Ok(())
    }
}

/// The one that is `wanted`, without a wish the first. `ids`: those of all, for the refusal.
pub(super) fn chosen<'a, T>(
    all: &'a [T],
    id_of: impl Fn(&T) -> &SpiffeId,
    wanted: Option<&SpiffeId>,
    ids: &[String],
) -> Result<&'a T, CommandError> {
    let chosen = match wanted {
        None => all.first(),
        Some(wanted) => all.iter().find(|one| id_of(one) == wanted),
    };
    chosen.ok_or_else(|| {
        let wanted = wanted.map_or("an identity".to_owned(), ToString::to_string);
        CommandError::Malformed(format!("{wanted} is none of this process's identities: {}", shown(ids.join(", "))))
    })
}
